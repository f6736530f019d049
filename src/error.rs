//! Errors of the API: misuse by the VMM, never anything a guest does.

use std::borrow::Cow;
use std::fmt;

/// Result of an API call.
pub type Result<T> = core::result::Result<T, Error>;

/// What a caller did wrong: an errno for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    errno: i32,
    message: Cow<'static, str>,
}

impl Error {
    /// An error with a positive `errno` and a sentence that says what was wrong
    /// and what would be right.
    pub fn new(errno: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            errno,
            message: message.into(),
        }
    }

    /// `EINVAL` with a sentence.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(libc::EINVAL, message)
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The positive errno.
    pub fn errno(&self) -> i32 {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
