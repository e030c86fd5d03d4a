//! Messages in a Maildir that another server has compressed, as Dovecot does with its plugin `zlib`. They are sent
//! plain.
//!
//! Dovecot looks at the first octets of each file. A plain message could begin with the same octets, so here a message
//! counts as compressed only if its name agrees: it has the flag `Z`, which scripts that compress old mail set, or its
//! `S=`, the size before compression, differs from the size of the file. If the two sizes are equal by chance, the message
//! counts as compressed if it has exactly this size when decompressed.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::name;
use super::opened::FileRange;

/// How many plain octets a message may have if its name does not tell them: this many times the octets of its file. gzip
/// cannot do better than that, and real mail is far from it.
const BEST_RATIO: u64 = 1032;

/// How many plain octets any message may have. A program may have written a wrong size into the name.
const ALWAYS_ALLOWED: u64 = 64 << 20;

/// A kind of compression that Dovecot writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
    Bzip2,
    /// Kinds that are recognised and cannot be read.
    Unsupported(&'static str),
}

const MAGIC: [(&[u8], Compression); 5] = [
    (b"\x1f\x8b\x08", Compression::Gzip),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    (b"BZh", Compression::Bzip2),
    (b"Dovecot-LZ4\x0d\x2a\x9b\xc5", Compression::Unsupported("lz4")),
    (b"\xfd7zXZ\x00", Compression::Unsupported("xz")),
];

const LONGEST_MAGIC: usize = 15;

impl Compression {
    /// The compression of a file.
    pub(super) fn of_file(file: &File) -> io::Result<Option<Self>> {
        let mut start = [0; LONGEST_MAGIC];
        let read = file.read_at(&mut start, 0)?;
        Ok(Self::of(&start[..read]))
    }

    /// The compression of a file that begins with these octets.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|&(_, compression)| compression)
    }
}

/// What the name of a file in a Maildir says about its compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The message is stored as it is.
    Plain,
    /// It is compressed if the file begins as compressed files do.
    Compressed,
    /// The same, but only if its plain size is that of the file.
    Unclear,
}

impl Told {
    pub(super) fn by(name: &[u8], stored: u64) -> Self {
        match name::told_size(name) {
            _ if name::flags(name).contains(&b'Z') => Self::Compressed,
            Some(size) if size != stored => Self::Compressed,
            Some(_) => Self::Unclear,
            None => Self::Plain,
        }
    }
}

/// The plain octets of a compressed message, which are decompressed while they are read. Reading fails if there are far
/// more than the name of the file tells, so that a small file cannot keep a session busy for ever.
pub struct Decompressed {
    decoder: Decoder,
    /// How many more octets may come.
    allowed: u64,
}

enum Decoder {
    Gzip(MultiGzDecoder<BufReader<FileRange>>),
    Zstd(Box<FrameDecoder>, BufReader<FileRange>),
    Bzip2(MultiBzDecoder<BufReader<FileRange>>),
}

impl Decompressed {
    /// Decompresses a file that has this name in a Maildir.
    ///
    /// # Errors
    /// When the kind of compression is not supported.
    pub(super) fn new(compression: Compression, range: FileRange, name: &[u8]) -> io::Result<Self> {
        let told = name::told_size(name).unwrap_or(range.left.saturating_mul(BEST_RATIO));
        let source = BufReader::new(range);
        let decoder = match compression {
            Compression::Gzip => Decoder::Gzip(MultiGzDecoder::new(source)),
            Compression::Zstd => Decoder::Zstd(Box::default(), source),
            Compression::Bzip2 => Decoder::Bzip2(MultiBzDecoder::new(source)),
            Compression::Unsupported(kind) => {
                let why = format!("it is compressed with {kind}, which is not supported");
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
        };
        Ok(Self { decoder, allowed: told.max(ALWAYS_ALLOWED) })
    }
}

impl Read for Decompressed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Bzip2(decoder) => decoder.read(buffer),
            Decoder::Zstd(frames, source) => read_zstd(frames, source, buffer),
        };
        let read = read.map_err(|error| io::Error::new(error.kind(), format!("it cannot be decompressed: {error}")))?;
        self.allowed = self.allowed.checked_sub(read as u64).ok_or_else(|| {
            let why = "it is compressed and has more octets than its name and the size of its file allow";
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        Ok(read)
    }
}

impl fmt::Debug for Decompressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressed").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// Reads a file of one or more frames. The frames need memory for the window that they declare, 128 MiB at most.
fn read_zstd(frames: &mut FrameDecoder, source: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    while frames.can_collect() == 0 {
        if !frames.is_finished() {
            frames.decode_blocks(&mut *source, BlockDecodingStrategy::UptoBlocks(1)).map_err(io::Error::other)?;
        } else if source.fill_buf()?.is_empty() {
            return Ok(0);
        } else {
            frames.init(&mut *source).map_err(io::Error::other)?;
        }
    }
    frames.read(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use std::io::Write;

    #[test]
    fn the_name_and_the_beginning_decide() {
        for (name, stored, expected) in [
            (&b"1.a.h,S=100,W=104"[..], 60, Told::Compressed),
            (b"1.a.h,S=100,W=104:2,S", 100, Told::Unclear),
            (b"1.a.h,S=100,W=104:2,SZ", 100, Told::Compressed),
            (b"1.a.h:2,Z", 7, Told::Compressed),
            (b"1.Z.h:2,S", 7, Told::Plain),
            (b"1.Z.h", 7, Told::Plain),
        ] {
            assert_eq!(Told::by(name, stored), expected, "{}", name.escape_ascii());
        }
        for (magic, compression) in MAGIC {
            assert!(magic.len() <= LONGEST_MAGIC);
            assert_eq!(Compression::of(&[magic, b"more"].concat()), Some(compression));
            assert_eq!(Compression::of(&magic[..magic.len() - 1]), None);
        }
        assert_eq!(Compression::of(b"Received: from a"), None);
    }

    #[test]
    fn a_small_file_cannot_have_a_message_without_end() {
        let mut encoder = GzEncoder::new(tempfile::tempfile().unwrap(), flate2::Compression::default());
        for _ in 0..1000 {
            encoder.write_all(&[0; 1000]).unwrap();
        }
        let file = encoder.finish().unwrap();
        let range = FileRange { left: file.metadata().unwrap().len(), file, offset: 0, wire_form: false };
        let mut source = Decompressed::new(Compression::Gzip, range, b"1.a.h,S=999999").unwrap();
        assert_eq!(source.allowed, ALWAYS_ALLOWED);
        source.allowed = 999_999;
        let mut read = Vec::new();
        assert_eq!(source.read_to_end(&mut read).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read.len() < 1_000_000);
    }
}
