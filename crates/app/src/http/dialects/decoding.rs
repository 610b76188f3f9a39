//! Decoding: turns the bytes of a body into JSON, as the headers declare.
//!
//! Promises: a body that is not JSON is refused with 415; one without a declared type is taken as JSON, and so is an
//! object that `curl -d` sends with the type of a form. `gzip` and `deflate` are decompressed, other codings are a 415
//! that names these two. A decompressed body has the size limit of an uncompressed one, and is counted in the memory of
//! all bodies. A byte order mark is skipped. Costs one pass over a compressed body, outside the runtime if it is long.

use std::io::Read;

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use actix_web::web::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use tokio::task::spawn_blocking;

use crate::http::bodies::{BodyReservation, not_json};
use crate::http::problem::Problem;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// A longer compressed body is decompressed outside the async runtime.
const LONG: usize = 16 * 1_024;
/// The first allocation for a decompressed body. It doubles.
const FIRST: usize = 64 * 1_024;

/// The limits of a body that is to be decompressed.
pub struct BodyUnpacking {
    pub limit: usize,
    /// How many copies of it there are while the request is handled.
    pub copies: usize,
    pub memory: BodyReservation,
}

/// What the headers declare of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclaredCoding {
    coding: Coding,
    /// Whether it is declared as a form, which some clients do by default.
    is_form: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
}

/// Parses the headers, before the body is read.
pub fn declared(headers: &HeaderMap) -> Result<DeclaredCoding, Problem> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?").trim());
    let kind = text(CONTENT_TYPE).map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let is_form = match kind.as_deref() {
        None | Some("" | "application/json" | "text/json") => false,
        Some(kind) if kind.starts_with("application/") && kind.ends_with("+json") => false,
        Some("application/x-www-form-urlencoded") => true,
        Some(_) => return Err(not_json()),
    };
    let coding = match text(CONTENT_ENCODING).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "identity" => Coding::Identity,
        "gzip" | "x-gzip" => Coding::Gzip,
        "deflate" => Coding::Deflate,
        _ => {
            let detail = "Send the body plainly, or packed once by `gzip` or `deflate`.";
            let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_coding", detail);
            return Err(problem.with_header(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate")));
        }
    };
    Ok(DeclaredCoding { coding, is_form })
}

impl DeclaredCoding {
    pub fn is_packed(self) -> bool {
        self.coding != Coding::Identity
    }

    /// The JSON of the body.
    pub async fn unpack(self, bytes: Bytes, unpacking: BodyUnpacking) -> Result<Bytes, Problem> {
        let coding = self.coding;
        let unpacked = match coding {
            Coding::Identity => bytes,
            _ if bytes.len() <= LONG => unpacked(coding, &bytes, unpacking)?,
            _ => {
                let work = spawn_blocking(move || unpacked(coding, &bytes, unpacking));
                work.await.unwrap_or_else(|broken| Err(Problem::internal(&broken)))?
            }
        };
        let json =
            if unpacked.starts_with(BYTE_ORDER_MARK) { unpacked.slice(BYTE_ORDER_MARK.len()..) } else { unpacked };
        let is_object = json.trim_ascii_start().starts_with(b"{");
        if self.is_form && !is_object { Err(not_json()) } else { Ok(json) }
    }
}

fn unpacked(coding: Coding, packed: &[u8], unpacking: BodyUnpacking) -> Result<Bytes, Problem> {
    match coding {
        Coding::Identity => read(packed, unpacking),
        Coding::Gzip => read(MultiGzDecoder::new(packed), unpacking),
        // Some clients omit the zlib header that the standard requires.
        Coding::Deflate if has_zlib_head(packed) => read(ZlibDecoder::new(packed), unpacking),
        Coding::Deflate => read(DeflateDecoder::new(packed), unpacking),
    }
}

fn has_zlib_head(packed: &[u8]) -> bool {
    match packed {
        [first, second, ..] => first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)).is_multiple_of(31),
        _ => false,
    }
}

fn read(mut reader: impl Read, unpacking: BodyUnpacking) -> Result<Bytes, Problem> {
    let BodyUnpacking { limit, copies, mut memory } = unpacking;
    let mut bytes = Vec::new();
    loop {
        // One byte beyond the limit shows that the body is too large.
        let capacity = (bytes.capacity() * 2).max(FIRST).min(limit + 1);
        memory.grow_to(capacity)?;
        bytes.reserve_exact(capacity - bytes.len());
        let most = u64::try_from(capacity - bytes.len()).unwrap_or(u64::MAX);
        match reader.by_ref().take(most).read_to_end(&mut bytes) {
            Err(_) => return Err(Problem::malformed("The body is not packed as its `Content-Encoding` says.")),
            Ok(_) if bytes.len() > limit => {
                let detail = "The unpacked body is larger than this route takes.";
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
            }
            Ok(came) if came == capacity - (bytes.len() - came) => {}
            Ok(_) => {
                memory.grow_to(bytes.len().saturating_mul(copies))?;
                return Ok(memory.around(bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use actix_web::http::header::HeaderName;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;
    use crate::http::bodies::tests::memory;

    const JSON: &[u8] = b"{\"a\":1}";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn sent(pairs: &[(&str, &str)], body: Vec<u8>) -> Result<Bytes, (u16, &'static str)> {
        let told = |problem: Problem| (problem.status.as_u16(), problem.code);
        let memory = memory(3_000_000);
        let unpacking = BodyUnpacking { limit: 1_000_000, copies: 2, memory: memory.of(None) };
        let json = declared(&headers(pairs)).map_err(told)?.unpack(Bytes::from(body), unpacking).await.map_err(told);
        if json.is_err() {
            assert_eq!(memory.taken(), 0, "what is refused keeps no memory");
        }
        json
    }

    #[tokio::test]
    async fn json_is_taken_however_it_is_declared_and_nothing_else() {
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json", "text/json", ""]
        {
            assert_eq!(sent(&[("content-type", kind)], JSON.to_vec()).await.unwrap(), JSON, "{kind}");
        }
        assert_eq!(sent(&[], JSON.to_vec()).await.unwrap(), JSON);
        let form = [("content-type", "application/x-www-form-urlencoded")];
        assert_eq!(sent(&form, JSON.to_vec()).await.unwrap(), JSON, "as curl sends it");
        assert_eq!(sent(&form, b"a=1".to_vec()).await, Err((415, "not_json")));
        for kind in ["text/plain", "multipart/form-data; boundary=x", "application/xml", "application/jsonx", "json"] {
            assert_eq!(sent(&[("content-type", kind)], JSON.to_vec()).await, Err((415, "not_json")), "{kind}");
        }
        assert_eq!(sent(&[], [BYTE_ORDER_MARK, JSON].concat()).await.unwrap(), JSON);
    }

    #[tokio::test]
    async fn a_packed_body_is_unpacked_within_its_bound() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(JSON).unwrap();
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::best());
        deflate.write_all(JSON).unwrap();
        let twice = [gzip(b"{\"a\""), gzip(b":1}")].concat();
        for (coding, body) in [
            ("gzip", gzip(JSON)),
            ("x-gzip", gzip(&[BYTE_ORDER_MARK, JSON].concat())),
            ("gzip", twice),
            ("deflate", zlib.finish().unwrap()),
            ("DEFLATE", deflate.finish().unwrap()),
            ("identity", JSON.to_vec()),
        ] {
            assert_eq!(sent(&[("content-encoding", coding)], body).await.unwrap(), JSON, "{coding}");
        }
        let packed = [("content-encoding", "gzip")];
        assert_eq!(sent(&packed, gzip(&vec![b' '; 1_000_000])).await.unwrap().len(), 1_000_000);
        assert_eq!(sent(&packed, gzip(&vec![b' '; 1_000_001])).await, Err((413, "too_large")));
        let bomb = gzip(&vec![b' '; 100_000_000]);
        assert!(bomb.len() > LONG);
        assert_eq!(sent(&packed, bomb).await, Err((413, "too_large")));
        for broken in [JSON.to_vec(), gzip(JSON)[..10].to_vec(), Vec::new()] {
            assert_eq!(sent(&packed, broken).await, Err((400, "malformed")));
        }
        let full = memory(1_000_000);
        let unpacking = || BodyUnpacking { limit: 800_000, copies: 2, memory: full.of(None) };
        let of_headers = || declared(&headers(&packed)).unwrap();
        let refused = of_headers().unpack(Bytes::from(gzip(&vec![b' '; 600_000])), unpacking()).await.unwrap_err();
        assert_eq!((refused.code, full.taken()), ("bodies_full", 0), "with its copies it takes more than there is");
        let kept = of_headers().unpack(Bytes::from(gzip(&vec![b' '; 400_000])), unpacking()).await.unwrap();
        assert_eq!((kept.len(), full.taken()), (400_000, 800_000));
        drop(kept);
        assert_eq!(full.taken(), 0);
        for coding in ["br", "zstd", "gzip, gzip", "compress"] {
            assert_eq!(sent(&[("content-encoding", coding)], JSON.to_vec()).await, Err((415, "unsupported_coding")));
        }
    }
}
