//! Who a client logs in as.

use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc};

use posthaste_tokio::session::sasl::{BearerToken, ClientCredentials, Credentials};

/// Who a client logs in as: fixed credentials, or those that a function gives for each connection.
///
/// ```
/// use posthaste_client::{BearerToken, ClientOptions, Credentials, Login};
///
/// # async fn token() -> std::io::Result<String> { Ok(String::new()) }
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut options = ClientOptions::new("client.example.org".parse()?);
/// options.credentials = Some(Credentials::new("me", "secret").into());
/// // A token that is renewed: the function may keep it until it expires.
/// options.credentials =
///     Some(Login::asked(async || Ok(BearerToken::new("me@example.org", &token().await?).into())));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Login(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(Arc<ClientCredentials>),
    Asked(Arc<Ask>),
}

type Ask = dyn Fn() -> Pin<Box<dyn Future<Output = Result<ClientCredentials, LoginError>> + Send>> + Send + Sync;

/// Why there are no credentials now: any error, or a text.
pub type LoginError = Box<dyn Error + Send + Sync>;

impl Login {
    /// Asks a function for the credentials of each connection, after TLS. It has no timeout but its
    /// own.
    pub fn asked<F, T>(ask: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<ClientCredentials, LoginError>> + Send + 'static,
    {
        Self(Kind::Asked(Arc::new(move || Box::pin(ask()))))
    }

    pub(crate) async fn credentials(&self) -> Result<ClientCredentials, LoginError> {
        match &self.0 {
            Kind::Fixed(credentials) => Ok((**credentials).clone()),
            Kind::Asked(ask) => ask().await,
        }
    }
}

impl From<ClientCredentials> for Login {
    fn from(credentials: ClientCredentials) -> Self {
        Self(Kind::Fixed(Arc::new(credentials)))
    }
}

impl From<Credentials> for Login {
    fn from(credentials: Credentials) -> Self {
        ClientCredentials::from(credentials).into()
    }
}

impl From<BearerToken> for Login {
    fn from(token: BearerToken) -> Self {
        ClientCredentials::from(token).into()
    }
}

/// Two are equal if one is a clone of the other.
impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Fixed(one), Kind::Fixed(other)) => Arc::ptr_eq(one, other),
            (Kind::Asked(one), Kind::Asked(other)) => Arc::ptr_eq(one, other),
            (Kind::Fixed(_) | Kind::Asked(_), _) => false,
        }
    }
}

impl Eq for Login {}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed(credentials) => f.debug_tuple("Login").field(credentials).finish(),
            Kind::Asked(_) => f.write_str("Login(..)"),
        }
    }
}
