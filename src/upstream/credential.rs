//! One credential, and the secret in it.

use std::fmt;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A password or token: wiped from memory after use, never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, for the request that it belongs in.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// One way to prove who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    /// User name and password.
    Password {
        /// The user's name.
        user: String,
        /// The password or personal access token.
        password: Secret,
    },
    /// A token that the token server exchanges for one that the registry takes (`OAuth2` refresh token).
    Identity(Secret),
    /// A token that the registry takes as it is.
    Registry(Secret),
}
