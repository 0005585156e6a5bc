//! What an HTTP client asks for, and what it is answered: nothing but `GET /metrics`.

use control::metrics::Format;

/// Longest request. Prometheus sends about 300 bytes, a browser about 1000.
pub(super) const REQUEST_MAX: usize = 8 << 10;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;

/// What the bytes that have come so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Not the whole request yet.
    Nothing,
    /// The page.
    Page(Format),
    /// Something that is not served: status and reason, and what the client is told.
    Refused(&'static str, &'static str),
}

/// Judges what a client has sent.
pub(super) fn asked(bytes: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_MAX => return Asked::Nothing,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            let status = "431 Request Header Fields Too Large";
            return Asked::Refused(status, "the request is too long");
        }
        Err(_) => return Asked::Refused("400 Bad Request", "this is no request of HTTP/1"),
    }
    let (method, path) = (request.method, request.path.unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    if path != "/metrics" {
        return Asked::Refused("404 Not Found", "the metrics are at /metrics");
    }
    if method != Some("GET") {
        return Asked::Refused("405 Method Not Allowed", "only GET is served");
    }
    let accepts = |header: &&mut httparse::Header<'_>| {
        header.name.eq_ignore_ascii_case("accept")
            && contains(header.value, b"application/openmetrics-text")
    };
    let is_open = request.headers.iter_mut().any(|h| accepts(&h));
    Asked::Page(match is_open {
        true => Format::OpenMetrics,
        false => Format::Text,
    })
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len())
        .any(|w| w.eq_ignore_ascii_case(words))
}

/// The answer with the page.
pub(super) fn page(format: Format, page: &str) -> Vec<u8> {
    answer("200 OK", format.content_type(), "", page)
}

/// The answer to what is not served.
pub(super) fn refusal(status: &str, text: &str) -> Vec<u8> {
    let allow = match status.starts_with("405") {
        true => "Allow: GET\r\n",
        false => "",
    };
    answer(status, "text/plain", allow, &format!("{text}\n"))
}

fn answer(status: &str, kind: &str, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Asked = Asked::Page(Format::Text);

    #[test]
    fn only_get_of_metrics_is_served() {
        let status = |request: &str| match asked(request.as_bytes()) {
            Asked::Refused(status, _) => status[..3].to_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(asked(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), TEXT);
        assert_eq!(asked(b"GET /metrics?a=b HTTP/1.0\r\n\r\n"), TEXT);
        let open =
            "GET /metrics HTTP/1.1\r\naccept: Application/OpenMetrics-text;version=1.0.0\r\n\r\n";
        assert_eq!(asked(open.as_bytes()), Asked::Page(Format::OpenMetrics));
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(status("GET /metrics/ HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(status("HEAD /metrics HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(
            status("POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n"),
            "405"
        );
        assert_eq!(status("GET /metrics HTTP/2\r\n\r\n"), "400");
        assert_eq!(status("\u{16}\u{3}\u{1}\r\n\r\n"), "400");
        let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(
            status(&format!("GET /metrics HTTP/1.1\r\n{many}\r\n")),
            "431"
        );
    }

    #[test]
    fn a_request_is_judged_when_it_is_whole_or_too_long() {
        let request = b"GET /metrics HTTP/1.1\r\nHost: firewall\r\n\r\n";
        for n in 0..request.len() {
            assert_eq!(asked(&request[..n]), Asked::Nothing, "{n}");
        }
        let mut long = b"GET /metrics HTTP/1.1\r\na: ".to_vec();
        long.resize(REQUEST_MAX - 1, b'x');
        assert_eq!(asked(&long), Asked::Nothing);
        long.push(b'x');
        assert!(matches!(asked(&long), Asked::Refused(status, _) if status.starts_with("431")));
    }

    #[test]
    fn an_answer_has_its_length_and_closes() {
        let text = String::from_utf8(refusal("405 Method Not Allowed", "only GET")).unwrap();
        assert!(text.contains("Content-Length: 9\r\nAllow: GET\r\nConnection: close\r\n\r\n"));
    }
}
