//! Values that logs must not show.

use core::fmt;

/// A value that `Debug` hides, in every build profile.
///
/// It holds credentials and SASL responses, so a program may log a whole command or event.
///
/// ```
/// let password = posthaste_wire::Secret::new("hunter2");
/// assert_eq!(format!("{password:?}"), "/* REDACTED */");
/// assert_eq!(*password.expose(), "hunter2");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value. Only this and [`into_inner`](Self::into_inner) give it out, and both are easy to
    /// search for.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// The value, without the wrapper.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/* REDACTED */")
    }
}
