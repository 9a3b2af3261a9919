//! Compressed archives, for media and directories that are short of room. Layers are compressed already, so that it saves
//! little but where images have layers in common that are compressed apart.

use std::io::{self, Write};

use zstd::Encoder;
use zstd::zstd_safe::CParameter;

use super::{Archive, ExportError};
use crate::store::Content;

/// As much as the disk of a node keeps up with.
const LEVEL: i32 = 3;
/// The window that matches are looked for in, as a power of two. k3s and RKE2 refuse frames with a larger one, because
/// their reader may use 32 MiB (wharfie `pkg/tarfile`, `zstd.WithDecoderMaxMemory`).
const WINDOW_LOG: u32 = 25;

/// The form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A plain tar.
    Tar,
    /// A tar, compressed with zstd.
    Zstd,
}

impl Archive {
    /// Writes the archive in a form. `progress` is told of the bytes before they are compressed.
    pub fn write_as(
        &self,
        form: Form,
        content: &dyn Content,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ExportError> {
        match form {
            Form::Tar => self.write(content, out, progress),
            Form::Zstd => {
                let mut encoder = encoder(out, self.size())?;
                self.write(content, &mut encoder, progress)?;
                encoder.finish()?.flush()?;
                Ok(())
            }
        }
    }
}

fn encoder<W: Write>(out: W, size: u64) -> io::Result<Encoder<'static, W>> {
    let mut encoder = Encoder::new(out, LEVEL)?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    encoder.set_pledged_src_size(Some(size))?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_one_that_k3s_reads() {
        let size = (1 << 25) + (1 << 24);
        let mut encoder = encoder(Vec::new(), size).unwrap();
        io::copy(&mut io::Read::take(io::repeat(7), size), &mut encoder).unwrap();
        let frame = encoder.finish().unwrap();
        // RFC 8878, 3.1.1.1: the descriptor, then the window's exponent and mantissa.
        assert_eq!(frame[4] & 0x20, 0, "a frame with a window of its own");
        assert_eq!((frame[5] >> 3, frame[5] & 7), (25 - 10, 0));
        assert_eq!(zstd::decode_all(&frame[..]).unwrap().len() as u64, size);
    }
}
