//! What is said once at the start: where it listens, whether the backends answer, who may call, what to try.
//!
//! Pure: it is given what was found out. No line promises what is not built, and every fault ends with what to do.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::escape::{escape, escape_short};
use crate::cli::style::{Color, Paint};
use crate::config::{CorsRule, PagesRule};
use crate::policy::{Remedy, Versions};

/// Everything that the banner tells.
#[derive(Clone, Debug)]
pub struct Banner<'a> {
    /// Ours.
    pub version: &'a str,
    /// The file that was read, if one was.
    pub file: Option<&'a str>,
    /// The addresses that were bound, with their real ports.
    pub listeners: &'a [(SocketAddr, Versions)],
    /// Their names, in the same order. Shown where there are several.
    pub names: &'a [Arc<str>],
    /// Whose `x-forwarded-*` each believes, in the same order.
    pub trusted: &'a [Vec<String>],
    /// The endpoints, in order.
    pub backends: &'a [Row],
    /// Which pages may call.
    pub cors: &'a CorsRule,
    /// Whether they may do so with cookies and certificates.
    pub credentials: bool,
    /// Routes that pages may call by another rule.
    pub own_rules: &'a [(Arc<str>, PagesRule)],
    /// Where a fault is mended: in the file, or by a flag.
    pub remedy: Remedy,
    /// A route takes the calls of gRPC's health service, which is what can be tried without knowing the server's own.
    pub health_routed: bool,
    /// The demo's page is at `/`.
    pub demo: bool,
}

/// The call that is shown for a try: any gRPC server answers it.
pub(crate) const TRIED_PATH: &str = "/grpc.health.v1.Health/Check";

/// A native call of the demo, as typed in the folder that has its description, before the address.
const DEMO_CALL: &str =
    "grpcurl -plaintext -import-path proto -proto demo.proto -d '{\"text\":\"hi\"}'";

/// One endpoint and what became of the first connection to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// As it was written: `host:port`.
    pub name: String,
    /// What was found.
    pub probe: Probe,
}

/// What became of the first connection to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It sent HTTP/2's SETTINGS.
    Answers {
        /// Where.
        address: SocketAddr,
        /// How long that took.
        elapsed: Duration,
    },
    /// Nothing listens at any of these addresses.
    Refused {
        /// All that were tried.
        tried: Vec<SocketAddr>,
    },
    /// It answered with a TLS record.
    WantsTls,
    /// It answered in HTTP/1.1; the status line.
    SpeaksHttp1(String),
    /// Nothing came within that time.
    Timeout(Duration),
    /// The name has no address; what the resolver said.
    NoAddress(String),
    /// It answered with something else.
    NotGrpc,
    /// It closed the connection and had sent nothing.
    ClosedMute,
    /// It closed the connection after the first words of HTTP/2.
    ClosedEarly,
    /// It is a function in this process.
    Local,
}

/// The whole banner, with its last line end.
pub fn render(banner: &Banner<'_>, color: Color) -> String {
    let mut out = String::new();
    let title = format!("wharf {}", banner.version);
    let _ = writeln!(
        out,
        "{}   gRPC-Web ⇄ gRPC\n",
        color.paint(Paint::Strong, &title)
    );
    if let Some(file) = banner.file {
        row(&mut out, "Config", &escape_short(file, 120), "");
    }
    for (index, (address, versions)) in banner.listeners.iter().enumerate() {
        let spoken = match versions {
            Versions::Both => "gRPC-Web over HTTP/1.1 and HTTP/2, gRPC over HTTP/2",
            Versions::Http1 => "gRPC-Web over HTTP/1.1",
            Versions::Http2 => "gRPC-Web and gRPC over HTTP/2, by prior knowledge",
        };
        let everywhere = match address.ip().is_unspecified() {
            true => ", on every address of this machine",
            false => "",
        };
        let name = banner.names.get(index);
        let name = match name.filter(|_| banner.listeners.len() > 1) {
            Some(name) => format!("\"{}\": ", escape_short(name, 64)),
            None => String::new(),
        };
        let said = format!("{name}{spoken}{everywhere}");
        row(&mut out, "Callers", &format!("http://{address}"), &said);
        if let Some(trusted) = banner.trusted.get(index).filter(|one| !one.is_empty()) {
            let said = "proxies whose x-forwarded-* is believed";
            row(
                &mut out,
                "Trusted",
                &escape_short(&trusted.join(", "), 120),
                said,
            );
        }
    }
    for backend in banner.backends {
        out.push_str(&backend_line(backend, banner.remedy, color));
    }
    cors_line(
        &mut out,
        None,
        banner.cors,
        banner.credentials,
        banner.remedy,
    );
    for (route, rule) in banner.own_rules {
        let PagesRule { pages, credentials } = rule;
        cors_line(&mut out, Some(route), pages, *credentials, banner.remedy);
    }
    // What speaks HTTP/1.1 is for everybody's tools.
    let easy = |(_, versions): &&(SocketAddr, Versions)| *versions != Versions::Http2;
    let listeners = banner.listeners;
    let tried = listeners.iter().find(easy).or_else(|| listeners.first());
    if let Some((address, versions)) = tried {
        let url = reachable(*address);
        out.push('\n');
        if banner.demo {
            let url = color.paint(Paint::Strong, &format!("{url}/"));
            let _ = writeln!(out, "  Open it:  {url}");
            // A client of gRPC alone needs a listener that speaks HTTP/2.
            let native = |(_, versions): &&(SocketAddr, Versions)| *versions != Versions::Http1;
            if let Some((address, _)) = listeners.iter().find(native) {
                let address = reachable(*address);
                let address = address.trim_start_matches("http://");
                let _ = writeln!(out, "  By gRPC:  {DEMO_CALL} {address} demo.v1.Echo/Say");
            }
        } else if banner.health_routed {
            let _ = writeln!(out, "  Try it:   {}", try_line(&url, *versions));
        }
        // Browsers speak no HTTP/2 without TLS.
        if !banner.demo && *versions != Versions::Http2 {
            let _ = writeln!(
                out,
                "  In code:  createGrpcWebTransport({{ baseUrl: \"{url}\" }})"
            );
        }
    }
    out.push_str("  Ctrl-C finishes open calls, a second Ctrl-C stops at once.\n\n");
    out
}

/// One line about one endpoint, as in the banner; also said when something has changed.
pub fn backend_line(backend: &Row, remedy: Remedy, color: Color) -> String {
    let (paint, mark) = match backend.probe {
        Probe::Answers { .. } | Probe::Local => (Paint::Good, "✓"),
        _ => (Paint::Bad, "✗"),
    };
    let said = format!(
        "{} {}",
        color.paint(paint, mark),
        sentence(&backend.probe, remedy)
    );
    let mut out = String::new();
    row(&mut out, "Backend", &escape_short(&backend.name, 80), &said);
    out
}

/// Which pages may call: everywhere, or on the routes of that name.
fn cors_line(
    out: &mut String,
    route: Option<&str>,
    pages: &CorsRule,
    credentials: bool,
    remedy: Remedy,
) {
    let (mut who, why) = match pages {
        CorsRule::Loopback => (
            "pages of this machine".to_owned(),
            "localhost, 127.0.0.1, [::1]; others in their place:  --allow-origin ORIGIN"
                .to_owned(),
        ),
        CorsRule::Nobody => (
            "no page of another origin".to_owned(),
            match (remedy, route) {
                (Remedy::Flag, _) => "allow one with  --allow-origin https://app.example.com",
                (Remedy::File, None) => {
                    "allow one with  allow_origins = [\"https://app.example.com\"] in [cors]"
                }
                (Remedy::File, Some(_)) => {
                    "allow one with  allow_origins = [\"https://app.example.com\"] in its [route.cors]"
                }
            }
            .to_owned(),
        ),
        CorsRule::Origins(origins) if origins.iter().any(|origin| origin == "*") => {
            ("every page of the web".to_owned(), String::new())
        }
        CorsRule::Origins(origins) => match origins.as_slice() {
            [one] if one == "null" => (
                "files and sandboxed frames (origin null)".to_owned(),
                String::new(),
            ),
            [one] => (format!("pages of {}", escape(one)), String::new()),
            many => (
                format!("pages of {} origins", many.len()),
                escape_short(&many.join(", "), 120),
            ),
        },
    };
    if credentials && matches!(pages, CorsRule::Origins(_)) {
        who.push_str(", with credentials");
    }
    if let Some(route) = route {
        who = format!("route \"{}\": {who}", escape(route));
    }
    row(out, "CORS", &who, &why);
}

/// A call that any gRPC server answers: one with health says so, another that it has none. Of the answer, which has bytes
/// that a terminal would not like, only the status is shown.
fn try_line(url: &str, versions: Versions) -> String {
    let how = match versions {
        Versions::Both | Versions::Http1 => "",
        Versions::Http2 => " --http2-prior-knowledge",
    };
    format!(
        "printf '\\0\\0\\0\\0\\0' | curl -s{how} -H 'content-type: application/grpc-web' --data-binary @- \
         '{url}{TRIED_PATH}' | grep -ao 'grpc-[a-z]*:.*'"
    )
}

fn sentence(probe: &Probe, remedy: Remedy) -> String {
    let cure = match remedy {
        Remedy::Flag => "--backend HOST:PORT",
        Remedy::File => "endpoints = [\"HOST:PORT\"] in [backend.NAME]",
    };
    match probe {
        Probe::Answers { address, elapsed } => {
            format!(
                "HTTP/2 at {} in {}",
                address.ip(),
                crate::cli::access::time(*elapsed)
            )
        }
        Probe::Local => "in this process".to_owned(),
        Probe::Refused { tried } => {
            let tried: Vec<_> = tried.iter().map(ToString::to_string).collect();
            format!(
                "nothing listens on {}; start it there, and the next call finds it",
                tried.join(" or ")
            )
        }
        Probe::WantsTls => {
            format!(
                "it wants TLS, which wharf does not speak to backends yet: give the port where it speaks plaintext,  {cure}"
            )
        }
        Probe::SpeaksHttp1(line) => format!(
            "it answered \"{}\": an HTTP/1.1 server, not gRPC. Give the gRPC server's port:  {cure}",
            escape_short(line.trim_end(), 60)
        ),
        Probe::Timeout(after) => format!(
            "no answer within {}; is the address right?  {cure}",
            crate::cli::access::time(*after)
        ),
        Probe::NoAddress(said) => format!(
            "the name has no address ({}); write another:  {cure}",
            escape_short(said, 120)
        ),
        Probe::NotGrpc => format!(
            "it answered something that is neither HTTP/2 nor HTTP/1.1. Give the gRPC server's port:  {cure}"
        ),
        Probe::ClosedMute => format!(
            "it closed the connection without a word, as a TLS port does: wharf speaks plaintext HTTP/2. Give the plaintext port:  {cure}"
        ),
        Probe::ClosedEarly => {
            "it began HTTP/2 and closed the connection; the next call tries again".to_owned()
        }
    }
}

/// An address that a person on this machine can open.
fn reachable(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

fn row(out: &mut String, head: &str, name: &str, rest: &str) {
    let line = format!("  {head:<8}  {name:<25}  {rest}");
    let _ = writeln!(out, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_newcomer_reads_where_what_who_and_what_to_try() {
        let backends = [
            Row {
                name: "localhost:50051".to_owned(),
                probe: Probe::Answers {
                    address: address("127.0.0.1:50051"),
                    elapsed: Duration::from_micros(1_840),
                },
            },
            Row {
                name: "localhost:50052".to_owned(),
                probe: Probe::Refused {
                    tried: vec![address("127.0.0.1:50052"), address("[::1]:50052")],
                },
            },
        ];
        let banner = Banner {
            version: "0.1.0",
            file: None,
            listeners: &[(address("127.0.0.1:8080"), Versions::Both)],
            names: &["web".into()],
            trusted: &[],
            backends: &backends,
            cors: &CorsRule::Loopback,
            credentials: false,
            own_rules: &[],
            remedy: Remedy::Flag,
            health_routed: true,
            demo: false,
        };
        assert_eq!(
            render(&banner, Color::Never),
            "\
wharf 0.1.0   gRPC-Web ⇄ gRPC

  Callers   http://127.0.0.1:8080      gRPC-Web over HTTP/1.1 and HTTP/2, gRPC over HTTP/2
  Backend   localhost:50051            ✓ HTTP/2 at 127.0.0.1 in 1.8 ms
  Backend   localhost:50052            ✗ nothing listens on 127.0.0.1:50052 or [::1]:50052; start it there, and the next call finds it
  CORS      pages of this machine      localhost, 127.0.0.1, [::1]; others in their place:  --allow-origin ORIGIN

  Try it:   printf '\\0\\0\\0\\0\\0' | curl -s -H 'content-type: application/grpc-web' --data-binary @- 'http://127.0.0.1:8080/grpc.health.v1.Health/Check' | grep -ao 'grpc-[a-z]*:.*'
  In code:  createGrpcWebTransport({ baseUrl: \"http://127.0.0.1:8080\" })
  Ctrl-C finishes open calls, a second Ctrl-C stops at once.

"
        );
    }

    #[test]
    fn each_fault_of_a_backend_says_what_to_do_and_nothing_of_it_reaches_the_terminal_raw() {
        for (probe, told) in [
            (Probe::WantsTls, "--backend HOST:PORT"),
            (
                Probe::SpeaksHttp1("HTTP/1.1 400 \x1b[31mBad\r\n".to_owned()),
                "it answered \"HTTP/1.1 400 \\u{1b}[31mBad\": an HTTP/1.1 server, not gRPC",
            ),
            (
                Probe::Timeout(Duration::from_secs(1)),
                "no answer within 1.00 s",
            ),
            (
                Probe::NoAddress("Name or service not known".to_owned()),
                "(Name or service not known); write another:  --backend",
            ),
            (
                Probe::NotGrpc,
                "neither HTTP/2 nor HTTP/1.1. Give the gRPC server's port:  --backend HOST:PORT",
            ),
            (
                Probe::ClosedMute,
                "it closed the connection without a word, as a TLS port does: wharf speaks plaintext HTTP/2. Give the plaintext port:  --backend HOST:PORT",
            ),
            (
                Probe::ClosedEarly,
                "it began HTTP/2 and closed the connection; the next call tries again",
            ),
            (
                Probe::Refused {
                    tried: vec![address("[::1]:1")],
                },
                "nothing listens on [::1]:1",
            ),
        ] {
            let row = Row {
                name: "a\n:1".to_owned(),
                probe,
            };
            let line = backend_line(&row, Remedy::Flag, Color::Never);
            assert!(line.contains(told), "{line}");
            let by_file = backend_line(&row, Remedy::File, Color::Never);
            assert!(!by_file.contains("--backend"), "{by_file}");
            assert_eq!(
                line.contains("--backend"),
                by_file.contains("endpoints = [\"HOST:PORT\"] in [backend.NAME]"),
                "{by_file}"
            );
            assert!(line.contains("✗") && line.contains("a\\n:1"), "{line}");
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(!line.trim_end().contains(char::is_control), "{line}");
        }
    }

    #[test]
    fn what_a_person_can_open_is_shown_for_addresses_that_nobody_can() {
        let banner = Banner {
            version: "0",
            file: None,
            listeners: &[
                (address("0.0.0.0:1"), Versions::Http1),
                (address("[::]:2"), Versions::Http2),
            ],
            names: &[],
            trusted: &[],
            backends: &[],
            cors: &CorsRule::Nobody,
            credentials: false,
            own_rules: &[],
            remedy: Remedy::Flag,
            health_routed: true,
            demo: true,
        };
        let text = render(&banner, Color::Never);
        assert!(text.contains("http://0.0.0.0:1"), "{text}");
        assert!(text.contains("on every address"), "{text}");
        assert!(text.contains("Open it:  http://127.0.0.1:1/\n"), "{text}");
        // gRPC is for the other listener.
        let native = "-proto demo.proto -d '{\"text\":\"hi\"}' [::1]:2 demo.v1.Echo/Say\n";
        assert!(text.contains(native), "{text}");
        assert!(
            text.contains("--allow-origin https://app.example.com"),
            "{text}"
        );
        assert!(!text.contains("| curl"), "{text}");
    }

    fn with<'a>(listeners: &'a [(SocketAddr, Versions)], cors: &'a CorsRule) -> Banner<'a> {
        Banner {
            version: "0",
            file: None,
            listeners,
            names: &[],
            trusted: &[],
            backends: &[],
            cors,
            credentials: false,
            own_rules: &[],
            remedy: Remedy::File,
            health_routed: true,
            demo: false,
        }
    }

    #[test]
    fn what_to_try_is_for_a_listener_that_speaks_http1_or_says_how_to_speak_http2() {
        let only = (address("127.0.0.1:1"), Versions::Http2);
        let both = (address("127.0.0.1:2"), Versions::Both);
        let text = render(&with(&[only, both], &CorsRule::Nobody), Color::Never);
        assert!(text.contains("'http://127.0.0.1:2/grpc.health"), "{text}");
        assert!(text.contains("baseUrl: \"http://127.0.0.1:2\""), "{text}");
        assert!(!text.contains("prior-knowledge "), "{text}");
        let text = render(&with(&[only], &CorsRule::Nobody), Color::Never);
        assert!(
            text.contains("| curl -s --http2-prior-knowledge -H 'content-type"),
            "{text}"
        );
        assert!(!text.contains("In code"), "{text}");
    }

    #[test]
    fn nothing_is_shown_for_a_try_that_no_route_takes() {
        let listeners = [(address("127.0.0.1:1"), Versions::Both)];
        let banner = Banner {
            health_routed: false,
            ..with(&listeners, &CorsRule::Nobody)
        };
        let text = render(&banner, Color::Never);
        assert!(!text.contains("Try it"), "{text}");
        assert!(text.contains("\n\n  In code:  createGrpcWeb"), "{text}");
    }

    #[test]
    fn several_listeners_are_told_apart_by_their_names() {
        let listeners = [
            (address("127.0.0.1:1"), Versions::Http1),
            (address("0.0.0.0:2"), Versions::Http2),
        ];
        let names = ["web".into(), "inside".into()];
        let banner = Banner {
            names: &names,
            ..with(&listeners, &CorsRule::Nobody)
        };
        let text = render(&banner, Color::Never);
        assert!(text.contains("\"web\": gRPC-Web over HTTP/1.1\n"), "{text}");
        assert!(
            text.contains("\"inside\": gRPC-Web and gRPC over HTTP/2"),
            "{text}"
        );
        let banner = Banner {
            listeners: &listeners[..1],
            ..banner
        };
        assert!(!render(&banner, Color::Never).contains("\"web\""));
    }

    #[test]
    fn proxies_that_are_believed_are_shown_below_their_listener() {
        let listeners = [
            (address("127.0.0.1:1"), Versions::Both),
            (address("127.0.0.1:2"), Versions::Both),
        ];
        let trusted = [
            Vec::new(),
            vec!["10.0.0.0/8".to_owned(), "::1/128".to_owned()],
        ];
        let banner = Banner {
            trusted: &trusted,
            ..with(&listeners, &CorsRule::Nobody)
        };
        let text = render(&banner, Color::Never);
        let lines: Vec<_> = text.lines().skip(3).take(2).collect();
        assert_eq!(
            lines[1],
            "  Trusted   10.0.0.0/8, ::1/128        proxies whose x-forwarded-* is believed",
            "{text}"
        );
        assert_eq!(lines.len(), 2);
        assert_eq!(text.matches("Trusted").count(), 1, "{text}");
    }

    #[test]
    fn the_file_that_was_read_is_named() {
        let banner = Banner {
            file: Some("./wharf.toml"),
            ..with(&[], &CorsRule::Nobody)
        };
        let text = render(&banner, Color::Never);
        assert!(text.contains("\n\n  Config    ./wharf.toml\n"), "{text}");
        let text = render(&with(&[], &CorsRule::Nobody), Color::Never);
        assert!(!text.contains("Config"), "{text}");
    }

    #[test]
    fn each_route_with_a_rule_of_its_own_has_a_line_and_credentials_are_told() {
        let origins = |list: &[&str]| {
            CorsRule::Origins(list.iter().map(|origin| (*origin).to_owned()).collect())
        };
        let rule = |pages, credentials| PagesRule { pages, credentials };
        let all = origins(&["https://all.example"]);
        let own_rules = [
            ("admin".into(), rule(origins(&["https://a.com"]), true)),
            ("open".into(), rule(origins(&["http://b", "*"]), false)),
            ("shut".into(), rule(CorsRule::Nobody, true)),
        ];
        let banner = Banner {
            credentials: true,
            own_rules: &own_rules,
            ..with(&[], &all)
        };
        let text = render(&banner, Color::Never);
        let lines: Vec<_> = text.lines().filter(|line| line.contains("CORS")).collect();
        assert_eq!(
            lines,
            [
                "  CORS      pages of https://all.example, with credentials",
                "  CORS      route \"admin\": pages of https://a.com, with credentials",
                "  CORS      route \"open\": every page of the web",
                "  CORS      route \"shut\": no page of another origin  allow one with  allow_origins = [\"https://app.example.com\"] in its [route.cors]",
            ]
        );
    }

    #[test]
    fn origins_that_were_named_are_shown() {
        let origins = |list: &[&str]| {
            let list = list.iter().map(|origin| (*origin).to_owned()).collect();
            let banner = Banner {
                version: "0",
                file: None,
                listeners: &[],
                names: &[],
                trusted: &[],
                backends: &[],
                cors: &CorsRule::Origins(list),
                credentials: false,
                own_rules: &[],
                remedy: Remedy::Flag,
                health_routed: true,
                demo: false,
            };
            render(&banner, Color::Never)
        };
        assert!(origins(&["https://a.example"]).contains("pages of https://a.example\n"));
        assert!(origins(&["null"]).contains("files and sandboxed frames (origin null)\n"));
        let many = origins(&["http://a", "http://b:*"]);
        assert!(many.contains("pages of 2 origins"), "{many}");
        assert!(many.contains("http://a, http://b:*"), "{many}");
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let row = Row {
            name: "a:1".to_owned(),
            probe: Probe::Local,
        };
        let plain = backend_line(&row, Remedy::Flag, Color::Never);
        let painted = backend_line(&row, Remedy::Flag, Color::Ansi);
        assert!(painted.contains("\x1b[32m✓\x1b[0m"));
        assert_eq!(
            painted.replace("\x1b[32m", "").replace("\x1b[0m", ""),
            plain
        );
    }
}
