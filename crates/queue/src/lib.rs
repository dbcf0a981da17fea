//! A durable store-and-forward queue: acknowledged means on stable storage
