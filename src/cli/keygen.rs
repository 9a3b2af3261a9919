//! `dray keygen`

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use dray::file::{self, Readers};
use dray::trust::PrivateKey;
use serde::Serialize;

use super::error::CliError;
use super::passphrase;
use super::runtime::Context;
use super::target::{self, OutputPath};

/// Generate a key pair for signing bundles
///
/// Writes PREFIX.key (PKCS#8 PEM, readable by you only) and PREFIX.pub. Keep the key on the connected side, in as few
/// hands as possible; carry the public half to the site by a way that you trust.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dray keygen -o release --passphrase\n  dray build -f plant.yaml -o plant.tar --key release.key"
)]
pub(crate) struct Keygen {
    /// Where to write: PREFIX.key and PREFIX.pub
    #[arg(short, long, value_name = "PREFIX")]
    output: OutputPath,
    /// Encrypt the private key under a passphrase, typed or from `DRAY_KEY_PASSPHRASE`
    #[arg(long)]
    passphrase: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    key_id: String,
    private_key: PathBuf,
    public_key: PathBuf,
}

impl Keygen {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let [private_key, public_key] = self.output.new_files([".key", ".pub"], exists)?;
        let key = PrivateKey::generate();
        let pem = if self.passphrase { key.to_encrypted_pem(&passphrase::choose()?) } else { key.to_pem() };
        let pem = pem.map_err(CliError::failed)?;
        write_new(&private_key, pem.as_bytes(), Readers::Owner)?;
        let public_pem = key.public().to_pem().map_err(CliError::failed)?;
        if let Err(error) = write_new(&public_key, public_pem.as_bytes(), Readers::Usual) {
            // Half a pair is of no use, and would block the next try.
            let _ = std::fs::remove_file(&private_key);
            return Err(error);
        }
        let made = Made { key_id: key.public().id().to_string(), private_key, public_key };
        context.output.result(&made, || {
            format!(
                "key      {}\nprivate  {}  (keep it secret)\npublic   {}  (bring it to the site)",
                made.key_id,
                made.private_key.display(),
                made.public_key.display()
            )
        })
    }
}

fn exists(path: &Path) -> CliError {
    CliError::failed(format!("{} exists", path.display()))
        .hint("keys are never overwritten; choose another name or move the old pair away")
}

/// Writes a file that must not be there yet: a key that is overwritten is lost for ever.
fn write_new(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), CliError> {
    file::create_new(path, bytes, readers).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => target::with_disk_hint(CliError::failed(format!("{}: {error}", path.display())), &error),
    })
}
