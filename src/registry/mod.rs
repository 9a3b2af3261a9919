//! The registry: an HTTP server for the OCI distribution API over any [`Content`](crate::store::Content).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use dray::registry::{Config, Server};
//! use dray::store::Store;
//!
//! let store = Store::open("store".as_ref())?;
//! let server = Server::bind(Arc::new(store), Config::default()).await?;
//! println!("serving on {}", server.local_addr());
//! server.run(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! A request goes from `server.rs` (connections and their limits) to `route.rs` (which endpoint), to the endpoint's own
//! file, and there through `lookup.rs` (which repository is meant) to the content. Nobody looks back: endpoints know what
//! is in `service.rs`, not who asked them.

mod about;
mod access;
mod answer;
mod body;
mod certificate;
mod composed;
mod deliver;
mod error;
mod extras;
mod files;
mod left_out;
mod listen;
mod listing;
mod lookup;
mod made;
mod metrics;
mod misses;
mod naming;
mod path;
mod pipe;
mod pull;
mod range;
mod reader;
mod readers;
mod receive;
mod request;
mod route;
mod server;
mod service;
mod sessions;
mod splice;
mod stream;
mod tls;
mod upload;
mod users;
mod wants;
mod write;

/// What the fuzz targets reach and programs do not.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use http::HeaderValue;

    /// Reads the value of a `Content-Range` header.
    pub fn content_range(value: &[u8]) -> Option<(u64, u64)> {
        super::range::parse_chunk(HeaderValue::from_bytes(value).ok()?.to_str().ok()?)
    }

    /// Reads the value of an `Authorization` header.
    pub fn authorization(value: &[u8]) -> Option<(String, String)> {
        super::users::credentials(&HeaderValue::from_bytes(value).ok()?)
    }

    /// The value of an `Authorization` header.
    pub fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
    }
}

pub use access::{Access, AccessLog};
pub use extras::{Composition, Extra, ExtraError, Extras, Piece, Question};
pub use left_out::LeftOut;
pub use listen::{Listen, ListenError, inherited_listener};
pub use naming::{Asked, Candidates, Naming};
pub use path::{Endpoint, ManifestReference, PathError, Query};
pub use range::{Wanted, parse as parse_range};
pub use server::{Config, Limits, Server, Transfers};
pub use tls::{Expected, Pair, Tls, TlsError, certificate_names, make_authority, make_server};
pub use users::{Users, UsersError};
pub use wants::{MAX_WANTS, Miss, Want, Wants, WantsError, read_wants, wants_json, wants_list};
