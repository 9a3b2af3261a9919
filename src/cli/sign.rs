//! `dray sign`

use std::path::{Path, PathBuf};

use clap::Args;
use dray::bundle::{self, Bundle};
use dray::input;
use dray::trust::{self, Signatures};
use jiff::Timestamp;
use serde_json::json;

use super::error::CliError;
use super::inputs::{self, MAX_KEY_BYTES};
use super::runtime::Context;
use super::target::{self, OutputPath};

/// Add a signature to a bundle
///
/// Only the last few kilobytes of the file are rewritten, or of the last volume. Signatures that are there stay. A key that never leaves its
/// device signs in two steps: --payload-out gives the bytes, --signature takes what the device made of them.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray sign plant.tar --key second.key\n  dray sign plant.tar --payload-out plant.payload\n  openssl dgst -sha256 -sign hsm.key -out plant.sig plant.payload\n  dray sign plant.tar --signature plant.sig --public-key hsm.pub"
)]
pub(crate) struct Sign {
    /// The bundle, or one of its volumes; the others must lie beside it
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    #[command(flatten)]
    way: Way,
    /// The public half of the key that made --signature
    #[arg(long, value_name = "PUB", requires = "signature")]
    public_key: Option<PathBuf>,
    /// With --payload-out: write the bytes for the Sigstore form as well
    #[arg(long, value_name = "FILE", requires = "payload_out")]
    statement_out: Option<OutputPath>,
    /// With --signature: add this signature of the bytes of --statement-out as well
    #[arg(long, value_name = "FILE", requires = "signature")]
    statement_signature: Option<PathBuf>,
}

/// Who signs.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Way {
    /// The private key, made by `dray keygen`; may be repeated
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    key: Vec<PathBuf>,
    /// Sign nothing, but write the bytes that are to be signed with ECDSA P-256 and SHA-256; `-` for standard output
    #[arg(long, value_name = "FILE")]
    payload_out: Option<OutputPath>,
    /// Add this signature of those bytes: DER, base64 of DER, or the two numbers that PKCS#11 gives
    #[arg(long, value_name = "FILE", requires = "public_key")]
    signature: Option<PathBuf>,
}

impl Sign {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        if let Some(path) = &self.way.payload_out {
            return self.write_payload(context, path);
        }
        target::check_rewritable(&self.bundle)?;
        let bundle = if let Some(signature) = &self.way.signature {
            self.attach(context, signature)?
        } else {
            let keys = inputs::private_keys(&self.way.key)?;
            bundle::sign(&self.bundle, &context.inputs, |claim| Signatures::create(&keys, claim))?
        };
        if let Err(error) = bundle.check_expiry(Timestamp::now()) {
            context.output.warn(error);
        }
        let signatures = bundle.signatures().map_or(0, |all| all.simple().signatures().len());
        let value = json!({
            "bundle": self.bundle,
            "digest": bundle.index().digest,
            "signatures": signatures,
        });
        context.output.result(&value, || {
            format!("{}: {} signatures of {}", self.bundle.display(), signatures, bundle.index().digest)
        })
    }

    /// Writes what a signer elsewhere is to sign.
    fn write_payload(&self, context: &Context, path: &OutputPath) -> Result<(), CliError> {
        let mut payload = path.stream(context)?;
        let mut statement = self.statement_out.as_ref().map(|path| path.stream(context)).transpose()?;
        if let Some(statement) = &statement {
            payload.differs_from(statement)?;
        }
        let bundle = Bundle::open(&self.bundle)?;
        for target in std::iter::once(&mut payload).chain(&mut statement) {
            target.protect(bundle.paths())?;
        }
        payload.write(bundle.claim().payload.clone())?;
        if let Some(statement) = &statement {
            statement.write(trust::signed_bytes(&bundle.claim().statement))?;
        }
        let value = json!({
            "bundle": self.bundle,
            "digest": bundle.index().digest,
            "payload": payload,
            "statement": statement,
        });
        context.output.result(&value, || format!("{payload}: sign these bytes with ECDSA P-256 and SHA-256"))
    }

    /// Adds what a signer elsewhere made.
    fn attach(&self, context: &Context, signature: &Path) -> Result<Bundle, CliError> {
        let keys = inputs::public_keys(self.public_key.as_slice())?;
        let [key] = &keys[..] else {
            return Err(CliError::usage("--public-key names more than one key; give the one that signed"));
        };
        let signature = input::read_bytes(signature, MAX_KEY_BYTES)?;
        let statement = self.statement_signature.as_deref();
        let statement = statement.map(|path| input::read_bytes(path, MAX_KEY_BYTES)).transpose()?;
        let accept = |claim: &_| Signatures::accept(key, claim, &signature, statement.as_deref());
        Ok(bundle::sign(&self.bundle, &context.inputs, accept)?)
    }
}
