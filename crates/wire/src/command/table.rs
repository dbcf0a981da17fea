//! The parameters of MAIL and RCPT as tables: one row declares, reads, writes, borrows and owns
//! one.

/// Declares a command of the envelope: its path, and a row for each parameter that has a field.
///
/// A row is `kind field: type = NAME "KEYWORD" => reader;`, and its kind is one of
/// - `flag`: a `bool`, without a value on the wire;
/// - `value`: an `Option` of a type that owns all it has;
/// - `text`: an `Option` of a type whose text lives in `S`;
/// - `keyed`: as `text`, with several keywords; its `Display` writes the keyword as well.
///
/// Parameters are written in the order of the rows. A parameter without a row is kept in
/// `parameters`.
macro_rules! envelope_command {
    (
        $(#[$doc:meta])*
        pub struct $name:ident {
            $(#[$path_doc:meta])*
            $path:ident: $path_type:ident = $any:ident,
            $($(#[$field_doc:meta])* $kind:ident $field:ident: $type:ty = $($key:ident $keyword:literal => $read:expr),+;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name<S: AsRef<str> = String> {
            $(#[$path_doc])*
            pub $path: $path_type<S>,
            $($(#[$field_doc])* pub $field: $type,)*
            /// Every parameter as it came. `unknown` gives those that have no field here.
            pub parameters: Parameters<S>,
        }

        mod known {
            use crate::grammar::key_or_long;

            $($(pub(super) const $key: u64 = key_or_long($keyword);)+)*
        }

        impl<S: AsRef<str> + Default> $name<S> {
            /// A command without parameters.
            #[inline]
            pub fn new($path: $path_type<S>) -> Self {
                Self { $path, $($field: Default::default(),)* parameters: Parameters::default() }
            }
        }

        impl<'a> $name<&'a str> {
            /// Fills the parameter's field. `false`: it has none.
            #[inline(always)]
            fn take(&mut self, parameter: &Parameter<'a>) -> Result<bool, SyntaxError> {
                match parameter.key() {
                    // A key of its own needs no comparison; the compiler leaves it out.
                    $($(known::$key if known::$key != LONG || parameter.is($keyword) => {
                        envelope_command!(@take $kind parameter, self.$field, $read)
                    })+)*
                    _ => Ok(false),
                }
            }

            /// The owned form.
            pub fn into_owned(self) -> $name {
                $name {
                    $path: self.$path.into_owned(),
                    $($field: envelope_command!(@owned $kind self.$field),)*
                    parameters: self.parameters.into_owned(),
                }
            }

            /// The parameters that have no field.
            pub fn unknown(&self) -> impl Iterator<Item = Parameter<'a>> {
                self.parameters.iter().filter(|parameter| Self::new($path_type::$any).take(parameter) == Ok(false))
            }
        }

        impl<S: AsRef<str>> $name<S> {
            /// The borrowed form.
            pub fn borrowed(&self) -> $name<&str> {
                $name {
                    $path: self.$path.borrowed(),
                    $($field: envelope_command!(@borrowed $kind self.$field),)*
                    parameters: self.parameters.borrowed(),
                }
            }
        }

        /// The path, the parameters with a field in the order of the fields, and the others as they
        /// came.
        impl<S: AsRef<str>> fmt::Display for $name<S> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.$path.fmt(f)?;
                $(envelope_command!(@write $kind f, self.$field, $($keyword),+);)*
                self.borrowed().unknown().try_for_each(|parameter| write!(f, " {parameter}"))
            }
        }
    };
    (@take flag $parameter:ident, $field:expr, $read:expr) => { $parameter.flag(&mut $field) };
    (@take $kind:ident $parameter:ident, $field:expr, $read:expr) => { $parameter.set(&mut $field, $read) };
    (@owned flag $field:expr) => { $field };
    (@owned value $field:expr) => { $field };
    (@owned $kind:ident $field:expr) => { $field.map(|value| value.into_owned()) };
    (@borrowed flag $field:expr) => { $field };
    (@borrowed value $field:expr) => { $field };
    (@borrowed $kind:ident $field:expr) => { $field.as_ref().map(|value| value.borrowed()) };
    (@write flag $f:ident, $field:expr, $keyword:literal) => {
        if $field {
            $f.write_str(concat!(" ", $keyword))?;
        }
    };
    (@write keyed $f:ident, $field:expr, $($keyword:literal),+) => {
        if let Some(value) = &$field {
            write!($f, " {value}")?;
        }
    };
    (@write $kind:ident $f:ident, $field:expr, $keyword:literal) => {
        if let Some(value) = &$field {
            write!($f, concat!(" ", $keyword, "={}"), value)?;
        }
    };
}

pub(super) use envelope_command;
