//! A store-and-forward SMTP relay that an application can embed
