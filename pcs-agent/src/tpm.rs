//! A key in a TPM 2.0 (TCG, TPM 2.0 Library, Parts 2 and 3): made from the endorsement seed by a fixed template, so that it is
//! the same after every start and on no other machine. Nothing is stored in the TPM, and nothing that others stored is used.
//!
//! Three commands are spoken, to a device such as `/dev/tpmrm0` or to the Unix socket of a virtual TPM.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use service::member::ResidencyKey;

/// Octets of a response at most (Part 2, `TPM_BUFFER_MAX` of common TPMs).
const RESPONSE_BYTES_MAX: usize = 4_096;
/// Times that a command is given again to a TPM that asks for that.
const RETRIES_MAX: u32 = 10;
/// Seconds for one answer of a virtual TPM; a device has the kernel's own limit.
const ANSWER_SECONDS_MAX: u64 = 30;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const CREATE_PRIMARY: u32 = 0x131;
const SIGN: u32 = 0x15d;
const FLUSH_CONTEXT: u32 = 0x165;
/// `TPM_RH_ENDORSEMENT`: its seed outlives `TPM2_Clear`.
const ENDORSEMENT: u32 = 0x4000_000b;
const NULL_HIERARCHY: u32 = 0x4000_0007;
/// `TPM_RC_YIELDED`, `TPM_RC_TESTING`, `TPM_RC_RETRY`.
const AGAIN: [u32; 3] = [0x908, 0x90a, 0x922];
/// `TPMA_OBJECT`: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign.
const ATTRIBUTES: u32 = 0x4_0472;

/// Why a TPM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// It cannot be talked to.
    #[error("the TPM at {path} cannot be used: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It says no.
    #[error("the TPM at {path} refuses {command}: response code {code:#x}")]
    Refused {
        /// Where.
        path: PathBuf,
        /// What.
        command: &'static str,
        /// `TPM_RC`, Part 2 §6.6.
        code: u32,
    },
    /// It says something that is not in the specification.
    #[error("the TPM at {0} gives an answer that cannot be read")]
    Unreadable(PathBuf),
}

/// A machine's TPM.
#[derive(Debug)]
pub struct Tpm {
    path: PathBuf,
    public_key: [u8; 65],
    /// One conversation at a time: a device without a resource manager has one place.
    turn: Mutex<()>,
}

impl Tpm {
    /// The TPM at a device or a Unix socket.
    pub fn open(path: &Path) -> Result<Self, TpmError> {
        let public_key = Conversation::with(path, |conversation| {
            let (handle, public_key) = conversation.create_primary()?;
            conversation.flush(handle)?;
            Ok(public_key)
        })?;
        Ok(Self { path: path.to_owned(), public_key, turn: Mutex::default() })
    }
}

impl ResidencyKey for Tpm {
    fn public_key(&self) -> &[u8; 65] {
        &self.public_key
    }

    fn sign(&self, statement: &[u8]) -> Result<[u8; 64], String> {
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let digest = ring::digest::digest(&ring::digest::SHA256, statement);
        let signed = Conversation::with(&self.path, |conversation| {
            let (handle, _) = conversation.create_primary()?;
            let signature = conversation.sign(handle, digest.as_ref());
            conversation.flush(handle)?;
            signature
        });
        signed.map_err(|error| error.to_string())
    }
}

/// An open device or socket.
struct Conversation<'path> {
    path: &'path Path,
    channel: Box<dyn Channel>,
}

trait Channel: Read + Write {}
impl<T: Read + Write> Channel for T {}

impl<'path> Conversation<'path> {
    fn with<T>(path: &'path Path, what: impl FnOnce(&mut Self) -> Result<T, TpmError>) -> Result<T, TpmError> {
        let failed = |error| TpmError::Io { path: path.to_owned(), error };
        let is_socket = std::fs::metadata(path).map_err(failed)?.file_type().is_socket();
        let channel: Box<dyn Channel> = if is_socket {
            let stream = UnixStream::connect(path).map_err(failed)?;
            stream.set_read_timeout(Some(Duration::from_secs(ANSWER_SECONDS_MAX))).map_err(failed)?;
            Box::new(stream)
        } else {
            Box::new(OpenOptions::new().read(true).write(true).open(path).map_err(failed)?)
        };
        what(&mut Self { path, channel })
    }

    /// `TPM2_CreatePrimary` (Part 3 §24.1).
    fn create_primary(&mut self) -> Result<(u32, [u8; 65]), TpmError> {
        let template = Body::default()
            .u16(0x23) // TPM_ALG_ECC
            .u16(0x0b) // names by SHA-256
            .u32(ATTRIBUTES)
            .sized(&[]) // no policy
            .u16(0x10) // no symmetric algorithm
            .u16(0x18) // TPM_ALG_ECDSA
            .u16(0x0b) // with SHA-256
            .u16(0x03) // TPM_ECC_NIST_P256
            .u16(0x10) // no key derivation
            .sized(&[])
            .sized(&[]);
        let sensitive = Body::default().sized(&[]).sized(&[]);
        let body =
            Body::default().u32(ENDORSEMENT).empty_password().sized(&sensitive.0).sized(&template.0).sized(&[]).u32(0);
        let answer = self.exchange("TPM2_CreatePrimary", SESSIONS, CREATE_PRIMARY, &body)?;
        let read = |answer: &mut Answer<'_>| {
            let (handle, _) = (answer.u32()?, answer.u32()?);
            let mut public = Answer(answer.sized()?);
            // Type, name algorithm and attributes; the policy; then algorithms and curve as in the template.
            public.take(8)?;
            public.sized()?;
            public.take(10)?;
            let (x, y) = (coordinate(public.sized()?)?, coordinate(public.sized()?)?);
            let mut point = [4; 65];
            point[1..33].copy_from_slice(&x);
            point[33..].copy_from_slice(&y);
            Some((handle, point))
        };
        read(&mut Answer(&answer)).ok_or_else(|| TpmError::Unreadable(self.path.to_owned()))
    }

    /// `TPM2_Sign` (Part 3 §20.2).
    fn sign(&mut self, handle: u32, digest: &[u8]) -> Result<[u8; 64], TpmError> {
        let body = Body::default()
            .u32(handle)
            .empty_password()
            .sized(digest)
            .u16(0x10) // the key's own scheme
            .u16(0x8024) // TPM_ST_HASHCHECK: the TPM need not have hashed it itself
            .u32(NULL_HIERARCHY)
            .sized(&[]);
        let answer = self.exchange("TPM2_Sign", SESSIONS, SIGN, &body)?;
        let read = |answer: &mut Answer<'_>| {
            // Size, scheme and hash.
            answer.take(8)?;
            let (r, s) = (coordinate(answer.sized()?)?, coordinate(answer.sized()?)?);
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&r);
            signature[32..].copy_from_slice(&s);
            Some(signature)
        };
        read(&mut Answer(&answer)).ok_or_else(|| TpmError::Unreadable(self.path.to_owned()))
    }

    /// `TPM2_FlushContext` (Part 3 §28.4).
    fn flush(&mut self, handle: u32) -> Result<(), TpmError> {
        self.exchange("TPM2_FlushContext", NO_SESSIONS, FLUSH_CONTEXT, &Body::default().u32(handle)).map(|_| ())
    }

    /// Gives a command, and has what comes after the response's header.
    fn exchange(&mut self, command: &'static str, tag: u16, code: u32, body: &Body) -> Result<Vec<u8>, TpmError> {
        let length = u32::try_from(10 + body.0.len()).map_err(|_| TpmError::Unreadable(self.path.to_owned()))?;
        let mut bytes = Body::default().u16(tag).u32(length).u32(code).0;
        bytes.extend_from_slice(&body.0);
        for retry in 0_u32.. {
            let answer = self.round(&bytes).map_err(|error| TpmError::Io { path: self.path.to_owned(), error })?;
            let header = |answer: &mut Answer<'_>| {
                answer.take(6)?;
                answer.u32()
            };
            match header(&mut Answer(&answer)) {
                Some(0) => return Ok(answer[10..].to_vec()),
                Some(code) if AGAIN.contains(&code) && retry < RETRIES_MAX => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Some(code) => return Err(TpmError::Refused { path: self.path.to_owned(), command, code }),
                None => break,
            }
        }
        Err(TpmError::Unreadable(self.path.to_owned()))
    }

    /// A device takes and gives a message at once, a socket may cut an answer in pieces.
    fn round(&mut self, command: &[u8]) -> std::io::Result<Vec<u8>> {
        self.channel.write_all(command)?;
        let mut answer = vec![0; RESPONSE_BYTES_MAX];
        let mut length = 0;
        loop {
            let wanted = match answer.get(2..6) {
                Some(size) if length >= 10 => u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize,
                _ => 10,
            };
            if !(10..=RESPONSE_BYTES_MAX).contains(&wanted) {
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a response of a wrong size"));
            }
            if length >= wanted {
                answer.truncate(wanted);
                return Ok(answer);
            }
            match self.channel.read(&mut answer[length..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => length += count,
            }
        }
    }
}

/// A number of 32 octets: a TPM may leave out zeros at its beginning.
fn coordinate(octets: &[u8]) -> Option<[u8; 32]> {
    let mut number = [0; 32];
    let start = 32_usize.checked_sub(octets.len())?;
    number[start..].copy_from_slice(octets);
    Some(number)
}

/// What is marshalled, big-endian (Part 2 §4).
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A `TPM2B`: everything here is shorter than a template.
    fn sized(self, octets: &[u8]) -> Self {
        let mut body = self.u16(u16::try_from(octets.len()).expect("nothing that is sent is that long"));
        body.0.extend_from_slice(octets);
        body
    }

    /// An authorization area with the empty password.
    fn empty_password(self) -> Self {
        let mut body = self.u32(9).u32(0x4000_0009).u16(0);
        body.0.push(0);
        body.u16(0)
    }
}

/// What is unmarshalled.
struct Answer<'bytes>(&'bytes [u8]);

impl<'bytes> Answer<'bytes> {
    fn take(&mut self, count: usize) -> Option<&'bytes [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn sized(&mut self) -> Option<&'bytes [u8]> {
        let size = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(usize::from(size))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A TPM that gives these answers, each for one command.
    fn answering(answers: Vec<Vec<u8>>) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tpm");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut command = [0; 1024];
                if stream.read(&mut command).unwrap() == 0 {
                    return;
                }
                // In two pieces, as a socket may.
                let middle = answer.len() / 2;
                stream.write_all(&answer[..middle]).unwrap();
                std::thread::sleep(Duration::from_millis(5));
                stream.write_all(&answer[middle..]).unwrap();
            }
        });
        (directory, path)
    }

    fn response(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Body::default().u16(SESSIONS).u32(10 + u32::try_from(body.len()).unwrap()).u32(code).0;
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn what_a_tpm_says_wrong_is_an_error_in_words() {
        let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
            // TPM_RC_BAD_AUTH, at the first session.
            (vec![response(0x9a2, &[])], "refuses TPM2_CreatePrimary: response code 0x9a2"),
            (vec![response(0, &[0, 0, 0])], "cannot be read"),
            (vec![response(0, &[0xff; 40])], "cannot be read"),
            (vec![vec![0x80, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]], "a response of a wrong size"),
            (vec![vec![0x80, 0x02, 0, 0]], "cannot be used"),
            (vec![], "cannot be used"),
        ];
        for (answers, expected) in cases {
            let (_directory, path) = answering(answers);
            let error = Tpm::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&path.display().to_string()), "{error}");
        }
        assert!(Tpm::open(Path::new("/nonexistent/tpm")).unwrap_err().to_string().contains("/nonexistent/tpm"));
    }

    #[test]
    fn a_tpm_that_is_busy_is_asked_again() {
        let (_directory, path) = answering(vec![response(0x922, &[]), response(0x90a, &[]), response(0x101, &[])]);
        let error = Tpm::open(&path).unwrap_err().to_string();
        assert!(error.contains("response code 0x101"), "{error}");
    }
}
