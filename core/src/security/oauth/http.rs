//! One request of HTTP/1.1 and its response, as bytes. Whoever answers may be anybody: every length is bounded, a
//! redirect is no answer (it would hand the client's secret to somebody else), and what is not clear is refused.

use std::time::Duration;

use httparse::{Header, Status};
use zeroize::Zeroizing;

use super::url::Url;

/// Bytes of a status line and headers, and of a body. A token with many groups takes 20 KiB.
const MAX_HEAD: usize = 32 << 10;
const MAX_BODY: usize = 256 << 10;

/// Headers of a response.
const MAX_HEADERS: usize = 100;

/// Responses that say that another one follows.
const MAX_INFORMATIONAL: usize = 4;

/// A request that posts a form.
pub(super) fn post(url: &Url, authorization: Option<&str>, form: &str) -> Zeroizing<Vec<u8>> {
    let host = url.host();
    // In one piece: a text that grows leaves copies behind.
    let secret = authorization.map_or(0, str::len) + form.len();
    let mut request =
        Zeroizing::new(Vec::with_capacity(512 + host.len() + url.target().len() + secret));
    let mut put = |parts: &[&str]| {
        for part in parts {
            request.extend_from_slice(part.as_bytes());
        }
    };
    put(&["POST ", url.target(), " HTTP/1.1\r\nHost: ", &host]);
    put(&["\r\nUser-Agent: ottla/", env!("CARGO_PKG_VERSION")]);
    put(&["\r\nAccept: application/json\r\nAccept-Encoding: identity\r\nConnection: close"]);
    put(&["\r\nContent-Type: application/x-www-form-urlencoded"]);
    put(&["\r\nContent-Length: ", &form.len().to_string()]);
    if let Some(authorization) = authorization {
        put(&["\r\nAuthorization: ", authorization]);
    }
    put(&["\r\n\r\n", form]);
    request
}

/// The response to one request.
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long the server wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Takes a response as it comes.
#[derive(Default)]
pub(super) struct Reader {
    bytes: Zeroizing<Vec<u8>>,
}

const NO_HTTP: &str = "it does not answer in HTTP";
const CUT: &str = "it hung up in the middle of its answer";
const TOO_LARGE: &str = "its answer is too large";
const UNCLEAR: &str = "its answer says its length in ways that do not fit";

impl Reader {
    /// `None`: more is to come. `over`: nothing more is.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        over: bool,
    ) -> Result<Option<Answer>, &'static str> {
        // What is around chunks, and what comes before the response, is not the body, and is bounded too.
        if self.bytes.len() + bytes.len() > 2 * (MAX_HEAD + MAX_BODY) {
            return Err(TOO_LARGE);
        }
        if self.bytes.len() + bytes.len() > self.bytes.capacity() {
            // What was read holds a token: it is moved without leaving it behind.
            let size = (2 * self.bytes.capacity()).max(self.bytes.len() + bytes.len()).max(4_096);
            let mut larger = Zeroizing::new(Vec::with_capacity(size));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(bytes);
        let mut rest = &self.bytes[..];
        for _ in 0..=MAX_INFORMATIONAL {
            match head(rest, over)? {
                Read::More => return Ok(None),
                Read::Informational(size) => rest = &rest[size..],
                Read::Head(head, size) => return head.with(&rest[size..], over),
            }
        }
        Err(NO_HTTP)
    }
}

enum Read {
    More,
    Informational(usize),
    Head(Head, usize),
}

struct Head {
    status: u16,
    retry_after: Option<Duration>,
    length: Length,
}

/// How long a body is.
enum Length {
    Of(usize),
    InChunks,
    UntilTheEnd,
}

fn head(bytes: &[u8], over: bool) -> Result<Read, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let size = match response.parse(bytes) {
        Ok(Status::Complete(size)) => size,
        Ok(Status::Partial) if bytes.len() > MAX_HEAD => return Err(TOO_LARGE),
        Ok(Status::Partial) if over && bytes.is_empty() => {
            return Err("it hung up without an answer");
        }
        Ok(Status::Partial) if over => return Err(CUT),
        Ok(Status::Partial) => return Ok(Read::More),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Err(_) => return Err(NO_HTTP),
    };
    let Some(status) = response.code else { return Err(NO_HTTP) };
    if size > MAX_HEAD {
        return Err(TOO_LARGE);
    }
    if (100..200).contains(&status) {
        return Ok(Read::Informational(size));
    }
    let length = length(status, response.headers)?;
    let encoded = text(response.headers, "content-encoding");
    if encoded.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err("its answer is compressed, which was not asked for");
    }
    // A date is not read: the usual wait will do.
    let seconds = text(response.headers, "retry-after").and_then(|text| text.parse().ok());
    let retry_after = seconds.map(Duration::from_secs);
    Ok(Read::Head(Head { status, retry_after, length }, size))
}

fn of<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

fn text<'a>(headers: &'a [Header<'a>], name: &'a str) -> Option<&'a str> {
    std::str::from_utf8(of(headers, name).next()?).ok().map(str::trim)
}

fn length(status: u16, headers: &[Header<'_>]) -> Result<Length, &'static str> {
    if matches!(status, 204 | 304) {
        return Ok(Length::Of(0));
    }
    let mut encodings = of(headers, "transfer-encoding");
    let mut lengths = of(headers, "content-length");
    match (encodings.next(), encodings.next(), lengths.next()) {
        (Some(encoding), None, None) if encoding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Length::InChunks)
        }
        (None, _, Some(length)) => {
            let digits = length.iter().all(u8::is_ascii_digit);
            let same = lengths.all(|other| other == length);
            let number = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
            match number {
                Some(number) if digits && same => {
                    if number > MAX_BODY {
                        Err(TOO_LARGE)
                    } else {
                        Ok(Length::Of(number))
                    }
                }
                _ if digits && same => Err(TOO_LARGE),
                _ => Err(UNCLEAR),
            }
        }
        (None, _, None) => Ok(Length::UntilTheEnd),
        _ => Err(UNCLEAR),
    }
}

impl Head {
    fn with(self, rest: &[u8], over: bool) -> Result<Option<Answer>, &'static str> {
        let body = match self.length {
            Length::Of(size) => rest.get(..size).map(<[u8]>::to_vec),
            Length::InChunks => chunks(rest)?,
            Length::UntilTheEnd if rest.len() > MAX_BODY => return Err(TOO_LARGE),
            Length::UntilTheEnd => over.then(|| rest.to_vec()),
        };
        match body {
            Some(body) => {
                let body = Zeroizing::new(body);
                Ok(Some(Answer { status: self.status, retry_after: self.retry_after, body }))
            }
            None if over => Err(CUT),
            None => Ok(None),
        }
    }
}

/// A body in chunks; `None`: more is to come.
fn chunks(mut rest: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    // As much as can come: a vector that grows leaves copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(rest.len()));
    loop {
        let (size, length) = match httparse::parse_chunk_size(rest) {
            Ok(Status::Complete((head, size))) => match usize::try_from(size) {
                Ok(size) if body.len() + size.min(MAX_BODY + 1) <= MAX_BODY => (head, size),
                _ => return Err(TOO_LARGE),
            },
            Ok(Status::Partial) if rest.len() > MAX_HEAD => return Err(TOO_LARGE),
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(NO_HTTP),
        };
        if length == 0 {
            // Trailers are nobody's.
            return Ok(Some(std::mem::take(&mut *body)));
        }
        let (Some(chunk), Some(end)) =
            (rest.get(size..size + length), rest.get(size + length..size + length + 2))
        else {
            return Ok(None);
        };
        if end != b"\r\n" {
            return Err(NO_HTTP);
        }
        body.extend_from_slice(chunk);
        rest = &rest[size + length + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], piece: usize) -> Result<Answer, &'static str> {
        let mut reader = Reader::default();
        for piece in bytes.chunks(piece) {
            if let Some(answer) = reader.take(piece, false)? {
                return Ok(answer);
            }
        }
        reader.take(&[], true).map(|answer| answer.expect("it is over"))
    }

    /// What is around chunks is no part of the body that is bounded.
    #[test]
    fn what_is_around_chunks_is_bounded() {
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(30_000));
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let text = format!("{head}{}", chunk.repeat(100));
        assert_eq!(read(text.as_bytes(), 8_192).err(), Some(TOO_LARGE));
    }

    #[test]
    fn a_request_is_whole_and_in_one_piece() {
        let url = Url::parse("https://idp:8443/token?a=b").unwrap();
        let request = post(&url, Some("Basic eA=="), "grant_type=client_credentials");
        let text = std::str::from_utf8(&request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /token?a=b HTTP/1.1\r\nHost: idp:8443\r\n"), "{head}");
        assert!(head.contains("\r\nAuthorization: Basic eA=="), "{head}");
        assert!(head.contains("\r\nContent-Length: 29"), "{head}");
        assert_eq!(body, "grant_type=client_credentials");
        let long = "x".repeat(10_000);
        let request = post(&url, Some(&long), &long);
        assert!(request.len() > 20_000 && request.capacity() < 21_000);
    }

    #[test]
    fn every_way_to_send_a_body_is_read_in_pieces_of_every_size() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello and more",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello",
        ] {
            for piece in [1, 3, 7, 1_000] {
                let answer = read(text.as_bytes(), piece).unwrap();
                assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]), "{text}");
            }
        }
        let answer =
            read(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 9).unwrap();
        assert_eq!((answer.status, answer.retry_after), (429, Some(Duration::from_secs(7))));
        assert_eq!(read(b"HTTP/1.1 204 None\r\n\r\n", 9).unwrap().body.len(), 0);
    }

    #[test]
    fn what_is_not_clear_or_too_large_is_refused() {
        let many = "X: y\r\n".repeat(MAX_HEADERS + 1);
        let long = "y".repeat(MAX_HEAD);
        for (text, words) in [
            ("", "without an answer"),
            ("SSH-2.0-x\r\n", "not answer in HTTP"),
            ("HTTP/1.1 200", "middle"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "middle"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell", "middle"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhello", "not answer"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "not answer"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "large"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "do not fit"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "do not fit",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "do not fit"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nab", "do not fit"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "large"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 262145\r\n\r\n", "large"),
            ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx", "compressed"),
            (&format!("HTTP/1.1 200 OK\r\n{many}\r\n"), "large"),
            (&format!("HTTP/1.1 200 OK\r\nX: {long}"), "large"),
            (&"HTTP/1.1 100 Go on\r\n\r\n".repeat(10), "not answer"),
        ] {
            let error = read(text.as_bytes(), 1_000).err().expect(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; MAX_BODY + 1]].concat();
        assert_eq!(read(&endless, 10_000).err(), Some(TOO_LARGE));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            chunked in any::<bool>(),
            piece in 1usize..50,
        ) {
            let _ = read(&bytes, piece);
            let head: &[u8] = match chunked {
                true => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                false => b"HTTP/1.1 200 OK\r\n",
            };
            let _ = read(&[head, &bytes].concat(), piece);
        }
    }
}
