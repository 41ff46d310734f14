//! Schema to [`Snapshot`]: every value read, every name resolved to what it names, all errors told.
//!
//! Pure: it asks neither the network nor the clock. An endpoint that is an IP address comes out with it; one that is a
//! name comes out with no address yet, because asking takes time and may fail: `control` fills it in.

mod browsers;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use toml::Spanned;

use crate::config::error::{Finding, Findings};
use crate::config::parse::nearest;
use crate::config::schema::{self, Form, Scalar, Schema};
use crate::config::units::{self, Count};
use crate::policy::{
    Backend, BackendId, Callee, Endpoint, Filter, Forwarded, Limits, Listener, Network,
    NetworkFault, PathMatch, Remedy, Route, RouteKind, Snapshot, Target, Versions,
};

/// A configuration that is valid.
#[derive(Debug)]
pub struct Compiled {
    /// What the cores obey. Its generation is 1; whoever publishes it counts on.
    pub snapshot: Snapshot,
    /// What concerns the process as a whole.
    pub process: Process,
    /// Who may call from a page, for people.
    pub cors: CorsRule,
    /// Whether they may do so as whoever is signed in.
    pub credentials: bool,
    /// The routes that pages may call by another rule, in order.
    pub own_rules: Vec<(Arc<str>, PagesRule)>,
    /// Whom each listener believes what it says of its clients, in the order of the listeners; for people.
    pub trusted: Vec<Vec<String>>,
    /// Where an operator mends what is wrong: in the file, or by a flag.
    pub remedy: Remedy,
    /// What is legal and surely unwanted.
    pub warnings: Findings,
}

/// What concerns the process as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// How many cores run; at least one.
    pub workers: usize,
    /// Whether each stays on a CPU of its own.
    pub pin_cpus: bool,
    /// How long open calls may still run when the process is told to stop.
    pub drain_timeout: Duration,
}

/// Which pages may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsRule {
    /// Pages of this machine: nothing was said, and everything listens on loopback only.
    Loopback,
    /// None: nothing was said.
    Nobody,
    /// These.
    Origins(Vec<String>),
}

/// Which pages may call, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagesRule {
    /// Which.
    pub pages: CorsRule,
    /// With cookies and certificates.
    pub credentials: bool,
}

/// What must be known of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that this process may use.
    pub cpus: usize,
    /// File descriptors that it may open.
    pub descriptors: u64,
}

/// The two ends of the demo, each a function inside the process.
#[derive(Clone, Debug)]
pub struct DemoEnds {
    /// Its gRPC service's full name, e.g. `demo.v1.Echo`.
    pub service: String,
    /// The service.
    pub echo: Arc<dyn Callee>,
    /// The page at `/`.
    pub page: Arc<dyn Callee>,
}

/// Where it listens if nobody says.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// What a schema means, or everything that is wrong with it.
pub fn compile(schema: &Schema, machine: &Machine) -> Result<Compiled, Findings> {
    let mut compiler = Compiler::new(schema);
    compiler.version();
    let backends = compiler.backends();
    let routes = compiler.routes(&backends);
    compiler.finish(machine, routes, backends)
}

/// The demo: `schema` says where it listens and which pages may call; who answers is in this process.
pub fn demo(schema: &Schema, ends: DemoEnds, machine: &Machine) -> Result<Compiled, Findings> {
    let local = |name: &str, callee: Arc<dyn Callee>| Backend {
        name: name.into(),
        target: Target::Local(callee),
        connect_timeout: CONNECT_TIMEOUT,
        connections_max: CONNECTIONS_PER_ENDPOINT,
        pending_max: PENDING,
    };
    let routes = vec![
        Draft {
            name: "page".into(),
            path: PathMatch::Exact("/".to_owned()),
            kind: RouteKind::Plain,
            backend: BackendId(0),
            cors: None,
        },
        Draft {
            name: "demo".into(),
            path: PathMatch::Prefix(format!("/{}", ends.service)),
            kind: RouteKind::Rpc,
            backend: BackendId(1),
            cors: None,
        },
    ];
    let backends = vec![local("page", ends.page), local("demo", ends.echo)];
    Compiler::new(schema).finish(machine, routes, backends)
}

/// A route before its filters.
struct Draft<'a> {
    name: Arc<str>,
    path: PathMatch,
    kind: RouteKind,
    backend: BackendId,
    /// What it says of pages by itself.
    cors: Option<&'a schema::Cors>,
}

struct Compiler<'a> {
    schema: &'a Schema,
    findings: Findings,
}

impl<'a> Compiler<'a> {
    fn new(schema: &'a Schema) -> Self {
        Self {
            schema,
            findings: Findings::default(),
        }
    }

    fn finish(
        mut self,
        machine: &Machine,
        routes: Vec<Draft<'a>>,
        backends: Vec<Backend>,
    ) -> Result<Compiled, Findings> {
        let (listeners, trusted) = self.listeners();
        let process = self.process(machine);
        let limits = self.limits(machine, process.workers);
        let live_path = self.live_path();
        let pages = self.pages(&listeners);
        let cors = pages.filter();
        let told = |networks: &Vec<Network>| networks.iter().map(ToString::to_string).collect();
        let trusted_told = trusted.iter().map(told).collect();
        let forwarded = Forwarded::new(trusted);
        let unrouted: Vec<Box<dyn Filter>> = vec![Box::new(cors.clone())];
        let rule = pages.rule();
        let mut own_rules = Vec::new();
        let routes = routes
            .into_iter()
            .map(|draft| {
                let cors = match draft.cors {
                    Some(written) => {
                        let own = self.pages_of(&draft.name, written, &pages);
                        if own.rule() != rule {
                            own_rules.push((Arc::clone(&draft.name), own.rule()));
                        }
                        own.filter()
                    }
                    None => cors.clone(),
                };
                let filters: Vec<Box<dyn Filter>> = match draft.kind {
                    RouteKind::Rpc => vec![Box::new(cors), Box::new(forwarded.clone())],
                    RouteKind::Plain => Vec::new(),
                };
                Route {
                    name: draft.name,
                    path: draft.path,
                    kind: draft.kind,
                    backend: draft.backend,
                    filters: filters.into(),
                }
            })
            .collect();
        self.findings.sort();
        if self.findings.has_errors() {
            return Err(self.findings);
        }
        Ok(Compiled {
            snapshot: Snapshot {
                generation: 1,
                listeners,
                routes,
                unrouted: unrouted.into(),
                backends,
                limits,
                live_path,
            },
            process,
            cors: rule.pages,
            credentials: rule.credentials,
            own_rules,
            trusted: trusted_told,
            remedy: schema_remedy(self.schema.form),
            warnings: self.findings,
        })
    }

    fn version(&mut self) {
        match &self.schema.version {
            Some(version) if *version.get_ref() == 1 => {}
            Some(version) => self.findings.push(
                Finding::error("E104", "this version of the file's words is not known")
                    .at(version.span(), "not known here")
                    .help("write: version = 1"),
            ),
            None => self.findings.push(
                Finding::error(
                    "E104",
                    "the file does not say which version of the words it uses",
                )
                .help("write at its head: version = 1"),
            ),
        }
    }

    fn process(&mut self, machine: &Machine) -> Process {
        let written = &self.schema.process;
        let cpus = machine.cpus.clamp(1, WORKERS_MAX as usize);
        let workers = self.read(&written.workers, |value| {
            units::count_or_auto(value, 1..=WORKERS_MAX)
        });
        Process {
            workers: match workers {
                Some(Count::Number(number)) => usize::try_from(number).unwrap_or(cpus),
                Some(Count::Auto) | None => cpus,
            },
            pin_cpus: written.pin_cpus.unwrap_or(true),
            drain_timeout: self
                .read(&written.drain_timeout, |value| {
                    units::duration(value, Duration::ZERO..=DAY)
                })
                .unwrap_or(DRAIN_TIMEOUT),
        }
    }

    fn limits(&mut self, machine: &Machine, workers: usize) -> Limits {
        let written = &self.schema.limits;
        let default = Limits::default();
        let size = |value: &Scalar, max: u64| {
            let bytes = units::bytes(value, 256..=max)?;
            usize::try_from(bytes).map_err(|_| "is too much for this machine".to_owned())
        };
        let time = |value: &Scalar| units::duration(value, SHORTEST..=DAY);
        let head_bytes_max = self
            .read(&written.header_bytes, |value| size(value, HEADER_BYTES_MAX))
            .unwrap_or(default.head_bytes_max);
        let line_bytes_max = self
            .read(&written.line_bytes, |value| size(value, HEADER_BYTES_MAX))
            .unwrap_or(default.line_bytes_max);
        if let Some(line) = &written.line_bytes
            && line_bytes_max > head_bytes_max
        {
            self.findings.push(
                Finding::error(
                    "E107",
                    "line_bytes is more than header_bytes, which includes it",
                )
                .at(line.span(), format!("header_bytes is {head_bytes_max}"))
                .help("raise header_bytes or lower line_bytes"),
            );
        }
        let connections = self.read(&written.connections, |value| {
            units::count_or_auto(value, 1..=10_000_000)
        });
        // A quarter is left for backends, listeners and logs.
        let connections = match connections {
            Some(Count::Number(number)) => number,
            Some(Count::Auto) | None => (machine.descriptors / 4).saturating_mul(3).max(1),
        };
        let per_worker = connections.div_ceil(workers.max(1) as u64);
        Limits {
            head_bytes_max,
            line_bytes_max: line_bytes_max.min(head_bytes_max),
            fields_max: self
                .read(&written.header_fields, |value| {
                    units::count(value, 8..=HEADER_FIELDS_MAX)
                })
                .map_or(default.fields_max, |number| number as usize),
            message_bytes_max: self
                .read(&written.message_bytes, |value| {
                    units::bytes(value, 1..=u64::from(u32::MAX))
                })
                .and_then(|bytes| u32::try_from(bytes).ok())
                .unwrap_or(default.message_bytes_max),
            heads_bytes_max: default.heads_bytes_max,
            buffers_bytes_max: default.buffers_bytes_max,
            head_timeout: self
                .read(&written.header_timeout, time)
                .unwrap_or(default.head_timeout),
            idle_timeout: self
                .read(&written.keepalive_timeout, time)
                .unwrap_or(default.idle_timeout),
            stall_timeout: self
                .read(&written.stall_timeout, time)
                .unwrap_or(default.stall_timeout),
            connections_max: usize::try_from(per_worker).unwrap_or(usize::MAX),
        }
    }

    fn live_path(&mut self) -> Option<String> {
        let Some(live) = &self.schema.health.live else {
            return Some(LIVE_PATH.to_owned());
        };
        if live.get_ref() == "none" {
            return None;
        }
        if let Err(label) = check_path(live.get_ref()) {
            self.findings.push(
                Finding::error("E110", "the path of the liveness answer is no path")
                    .at(live.span(), label)
                    .help("write live = \"/healthz\", or live = \"none\""),
            );
        }
        Some(live.get_ref().clone())
    }

    /// The listeners, and whom each trusts.
    fn listeners(&mut self) -> (Vec<Listener>, Vec<Vec<Network>>) {
        let mut listeners: Vec<Listener> = Vec::new();
        let mut trusted = Vec::new();
        for (index, written) in self.schema.listener.iter().enumerate() {
            let Some(address) = &written.get_ref().address else {
                self.findings.push(
                    Finding::error("E112", "a listener has no address")
                        .at(written.span(), "address is missing")
                        .help(format!("add: address = \"{DEFAULT_LISTEN}\"")),
                );
                continue;
            };
            let parsed = match listen_address(address.get_ref()) {
                Ok(parsed) => parsed,
                Err(fault) => {
                    let sentence = format!("cannot listen on {:?}", address.get_ref());
                    self.findings.push(fault.finding("E106", sentence, address));
                    continue;
                }
            };
            let taken = listeners
                .iter()
                .any(|other| other.address == parsed && parsed.port() != 0);
            if taken {
                self.findings.push(
                    Finding::error("E109", format!("two listeners have the address {parsed}"))
                        .at(address.span(), "already taken above")
                        .help("give it another port"),
                );
            }
            let name = match &written.get_ref().name {
                Some(name) => self.name(name),
                None if index == 0 => "web".to_owned(),
                None => format!("web-{}", index + 1),
            };
            if listeners.iter().any(|other| *other.name == *name) {
                self.findings.push(
                    Finding::error("E109", format!("two listeners have the name {name:?}"))
                        .at(written.span(), "the second")
                        .help("give each a name of its own"),
                );
            }
            let versions = self.versions(written.get_ref());
            listeners.push(Listener {
                name: name.into(),
                address: parsed,
                versions,
            });
            trusted.push(self.trusted_proxies(written.get_ref()));
        }
        if self.schema.listener.is_empty() {
            listeners.push(Listener {
                name: "web".into(),
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
                versions: Versions::Both,
            });
        }
        (listeners, trusted)
    }

    /// What a listener speaks.
    fn versions(&mut self, listener: &schema::Listener) -> Versions {
        let Some(protocol) = &listener.protocol else {
            return Versions::Both;
        };
        match protocol.get_ref().as_str() {
            "auto" => return Versions::Both,
            "http1" => return Versions::Http1,
            "http2" => return Versions::Http2,
            _ => {}
        }
        let word = protocol.get_ref().to_ascii_lowercase();
        let help = match word.as_str() {
            "http2" | "http/2" | "http/2.0" | "h2" | "h2c" => "did you mean \"http2\"?",
            "http1" | "http/1" | "http/1.1" | "http1.1" | "h1" => "did you mean \"http1\"?",
            "auto" => "did you mean \"auto\"?",
            "https" | "tls" => "TLS is not built yet; leave it out: \"auto\" is plaintext",
            _ => "leave it out: \"auto\" is both, and the client's first bytes say which",
        };
        self.findings.push(
            Finding::error(
                "E113",
                format!("a listener does not speak {:?}", protocol.get_ref()),
            )
            .at(protocol.span(), "\"auto\", \"http1\" or \"http2\"")
            .help(help),
        );
        Versions::Both
    }

    fn trusted_proxies(&mut self, listener: &schema::Listener) -> Vec<Network> {
        let mut networks = Vec::new();
        for text in listener.trusted_proxies.iter().flatten() {
            match text.get_ref().parse() {
                Ok(network) => {
                    let network: Network = network;
                    if network.is_everybody() {
                        self.findings.push(
                            Finding::warning("E156", "every client's x-forwarded-* is believed")
                                .at(text.span(), "every address")
                                .help("name the networks of your proxies, e.g. \"10.0.0.0/8\""),
                        );
                    }
                    networks.push(network);
                }
                Err(NetworkFault(help)) => self.findings.push(
                    Finding::error("E115", format!("{:?} is no network", text.get_ref()))
                        .at(text.span(), "not a network")
                        .help(help),
                ),
            }
        }
        networks
    }

    fn backends(&mut self) -> Vec<Backend> {
        let schema = self.schema;
        let mut backends = Vec::new();
        for (name, written) in &schema.backend {
            let endpoints = self.endpoints(name, written);
            if let Some(protocol) = &written.protocol {
                self.protocol(protocol);
            }
            let limits = &written.limits;
            let number =
                |value: &Scalar, max| units::count(value, 1..=max).map(|number| number as usize);
            backends.push(Backend {
                name: self.name(name).into(),
                target: Target::Endpoints(endpoints),
                connect_timeout: self
                    .read(&limits.connect_timeout, |value| {
                        units::duration(value, SHORTEST..=DAY)
                    })
                    .unwrap_or(CONNECT_TIMEOUT),
                connections_max: self
                    .read(&limits.connections, |value| number(value, 1_000))
                    .unwrap_or(CONNECTIONS_PER_ENDPOINT),
                pending_max: self
                    .read(&limits.pending, |value| number(value, 1_000_000))
                    .unwrap_or(PENDING),
            });
        }
        backends
    }

    fn endpoints(&mut self, name: &Spanned<String>, written: &schema::Backend) -> Vec<Endpoint> {
        let Some(list) = written
            .endpoints
            .as_ref()
            .filter(|list| !list.get_ref().is_empty())
        else {
            let at = written
                .endpoints
                .as_ref()
                .map_or_else(|| name.span(), Spanned::span);
            self.findings.push(
                Finding::error(
                    "E112",
                    format!("backend {:?} has no endpoints", name.get_ref()),
                )
                .at(at, "endpoints is missing or empty")
                .help("add: endpoints = [\"localhost:50051\"]"),
            );
            return Vec::new();
        };
        let mut seen = HashSet::new();
        let mut endpoints = Vec::new();
        for text in list.get_ref() {
            match endpoint(text.get_ref()) {
                Ok(endpoint) if seen.insert(endpoint.name.clone()) => endpoints.push(endpoint),
                Ok(endpoint) => self.findings.push(
                    Finding::error("E109", format!("endpoint {} is named twice", endpoint.name))
                        .at(text.span(), "the second time")
                        .help("leave it out"),
                ),
                Err(fault) => {
                    let number = fault.number;
                    let sentence = format!("{:?} is no endpoint", text.get_ref());
                    self.findings.push(fault.finding(number, sentence, text));
                }
            }
        }
        endpoints
    }

    fn protocol(&mut self, protocol: &Spanned<String>) {
        let help = match protocol.get_ref().as_str() {
            "h2c" => return,
            "h2" => TLS_TO_COME,
            _ => "write protocol = \"h2c\": it is the one that is built today",
        };
        self.findings.push(
            Finding::error(
                "E113",
                format!("wharf does not speak {:?} to backends", protocol.get_ref()),
            )
            .at(protocol.span(), "only \"h2c\"")
            .help(help),
        );
    }

    fn routes(&mut self, backends: &[Backend]) -> Vec<Draft<'a>> {
        let schema = self.schema;
        let mut routes: Vec<Draft<'a>> = Vec::new();
        let mut used = HashSet::new();
        let names_backend = |route: &Spanned<schema::Route>| route.get_ref().backend.is_some();
        for (index, written) in schema.route.iter().enumerate() {
            let route = written.get_ref();
            let backend = self.route_backend(written.span(), route, backends);
            let path = self.route_path(written.span(), route);
            let name = match &route.name {
                Some(name) => self.name(name),
                None => format!("route-{}", index + 1),
            };
            if routes.iter().any(|other| *other.name == *name) {
                self.findings.push(
                    Finding::error("E109", format!("two routes have the name {name:?}"))
                        .at(written.span(), "the second")
                        .help("give each a name of its own"),
                );
            }
            used.extend(backend);
            let (Some(backend), Some(path)) = (backend, path) else {
                continue;
            };
            if let PathMatch::Prefix(prefix) = &path
                && let Some(earlier) = routes.iter().find(|other| other.path.matches(prefix))
            {
                let same = matches!(&earlier.path, PathMatch::Prefix(other)
                    if other.trim_end_matches('/') == prefix.trim_end_matches('/'));
                self.findings.push(
                    Finding::warning(
                        "E151",
                        format!(
                            "route {name:?} can never match: {:?} before it takes all of {prefix}",
                            earlier.name
                        ),
                    )
                    .at(written.span(), "never reached")
                    .help(match same {
                        true => "both take the same paths: leave one out",
                        false => "the first match wins: put this route before the other",
                    }),
                );
            }
            routes.push(Draft {
                name: name.into(),
                path,
                kind: RouteKind::Rpc,
                backend,
                cors: route.cors.as_ref(),
            });
        }
        if schema.route.is_empty() {
            let example = backends.first().map_or("greeter", |backend| &*backend.name);
            self.findings.push(
                Finding::error("E108", "there is no [[route]], so nothing would be served").help(
                    format!("add: [[route]] with path_prefix = \"/\" and backend = \"{example}\""),
                ),
            );
        } else if schema.route.iter().all(names_backend)
            && !self
                .findings
                .0
                .iter()
                .any(|finding| finding.number == "E103")
        {
            // Else a backend that seems unused may be the one that was meant.
            for (id, name) in schema.backend.keys().enumerate() {
                if !used.contains(&BackendId(id)) {
                    self.findings.push(
                        Finding::warning(
                            "E152",
                            format!("no route uses backend {:?}", name.get_ref()),
                        )
                        .at(name.span(), "never used")
                        .help("name it in a [[route]], or leave it out"),
                    );
                }
            }
        }
        routes
    }

    fn route_backend(
        &mut self,
        at: Range<usize>,
        route: &schema::Route,
        backends: &[Backend],
    ) -> Option<BackendId> {
        let Some(wanted) = &route.backend else {
            self.findings.push(
                Finding::error("E112", "a route has no backend")
                    .at(at, "backend is missing")
                    .help("add: backend = \"NAME\", with NAME as in [backend.NAME]"),
            );
            return None;
        };
        let found = backends
            .iter()
            .position(|backend| *backend.name == **wanted.get_ref());
        if found.is_none() {
            let names = || backends.iter().map(|backend| &*backend.name);
            let help = match nearest(wanted.get_ref(), names()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if backends.is_empty() => {
                    format!("add: [backend.{}] with its endpoints", wanted.get_ref())
                }
                None => {
                    let tables: Vec<_> = names().map(|name| format!("[backend.{name}]")).collect();
                    format!("the file defines {}", tables.join(", "))
                }
            };
            self.findings.push(
                Finding::error(
                    "E103",
                    format!(
                        "route uses backend {:?}, which no [backend.*] table defines",
                        wanted.get_ref()
                    ),
                )
                .at(wanted.span(), "no such backend")
                .help(help),
            );
        }
        found.map(BackendId)
    }

    fn route_path(&mut self, at: Range<usize>, route: &schema::Route) -> Option<PathMatch> {
        let Some(prefix) = &route.path_prefix else {
            self.findings.push(
                Finding::error("E112", "a route does not say which paths it takes")
                    .at(at, "path_prefix is missing")
                    .help("add: path_prefix = \"/\" for all of them"),
            );
            return None;
        };
        if let Some((before, _)) = prefix.get_ref().split_once('*') {
            let whole = match before.trim_end_matches('/') {
                "" => "/",
                whole => whole,
            };
            self.findings.push(
                Finding::error("E110", format!("{:?} is no prefix", prefix.get_ref()))
                    .at(prefix.span(), "a prefix takes no *")
                    .help(format!("write {whole:?}: it takes everything below it")),
            );
            return None;
        }
        match check_path(prefix.get_ref()) {
            Ok(()) => Some(PathMatch::Prefix(prefix.get_ref().clone())),
            Err(label) => {
                self.findings.push(
                    Finding::error("E110", format!("{:?} is no path", prefix.get_ref()))
                        .at(prefix.span(), label)
                        .help("write it as in a URL, e.g. \"/helloworld.Greeter\""),
                );
                None
            }
        }
    }

    /// Names stand in logs: one word, nothing that a terminal or a reader could take for something else.
    fn name(&mut self, name: &Spanned<String>) -> String {
        let text = name.get_ref();
        let fits = !text.is_empty()
            && text.len() <= NAME_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        if !fits && self.schema.form == Form::File {
            self.findings.push(
                Finding::error("E110", format!("{text:?} is no name"))
                    .at(name.span(), "not a name")
                    .help("a name is up to 64 visible ASCII characters without spaces"),
            );
        }
        text.clone()
    }

    /// Reads one value, noting its fault at its place.
    fn read<T>(
        &mut self,
        value: &Option<Spanned<Scalar>>,
        read: impl FnOnce(&Scalar) -> Result<T, String>,
    ) -> Option<T> {
        let value = value.as_ref()?;
        match read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(fault) => {
                let written = match value.get_ref() {
                    Scalar::Number(number) => number.to_string(),
                    Scalar::Text(text) => format!("{text:?}"),
                };
                self.findings.push(
                    Finding::error("E107", format!("{written} is no value for this setting"))
                        .at(value.span(), "not usable")
                        .help(fault),
                );
                None
            }
        }
    }
}

fn schema_remedy(form: Form) -> Remedy {
    match form {
        Form::File => Remedy::File,
        Form::Flags => Remedy::Flag,
    }
}

/// Why an address cannot be used.
struct Unusable {
    number: &'static str,
    label: &'static str,
    help: String,
}

impl Unusable {
    fn finding(self, number: &'static str, sentence: String, at: &Spanned<String>) -> Finding {
        Finding::error(number, sentence)
            .at(at.span(), self.label)
            .help(self.help)
    }
}

/// `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`; without a host it is loopback.
fn listen_address(text: &str) -> Result<SocketAddr, Unusable> {
    let unusable = |label, help: String| Unusable {
        number: "E106",
        label,
        help,
    };
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        let help = format!("leave out {scheme}://, write \"{rest}\"");
        return Err(unusable("a URL, not an address", help));
    }
    if text.parse::<u16>().is_ok() {
        return Err(unusable("a port alone", format!("write it as \":{text}\"")));
    }
    if text.parse::<IpAddr>().is_ok() || text == "localhost" {
        let host = if text.contains(':') {
            format!("[{text}]")
        } else {
            text.to_owned()
        };
        return Err(unusable(
            "the port is missing",
            format!("write \"{host}:8080\""),
        ));
    }
    let form = || "write an address and a port, e.g. \"127.0.0.1:8080\" or \":8080\"".to_owned();
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| unusable("not an address", form()))?;
    let port: u16 = port
        .parse()
        .map_err(|_| unusable("the port is no number up to 65535", form()))?;
    match host {
        "" | "localhost" => Ok((Ipv4Addr::LOCALHOST, port).into()),
        "*" => Err(unusable(
            "not an address",
            format!("every address of this machine is \"0.0.0.0:{port}\", or \"[::]:{port}\""),
        )),
        _ => Err(unusable("a name, not an address", form())),
    }
}

/// `host:port`, also as `http://host:port`.
fn endpoint(text: &str) -> Result<Endpoint, Unusable> {
    let unusable = |number, label, help: String| Unusable {
        number,
        label,
        help,
    };
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("https://") || lower.starts_with("grpcs://") {
        return Err(unusable("E113", "TLS", TLS_TO_COME.to_owned()));
    }
    if lower.starts_with("unix:") {
        let help = "wharf reaches backends over TCP; unix sockets are not built yet";
        return Err(unusable("E113", "a unix socket", help.to_owned()));
    }
    let plain = ["http://", "grpc://"]
        .iter()
        .find(|scheme| lower.starts_with(**scheme))
        .and_then(|scheme| text.get(scheme.len()..))
        .map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
    let form = |host: &str| format!("write host and port, e.g. \"{host}:50051\"");
    if let Some((host, port)) = plain.rsplit_once(':')
        && host.parse::<Ipv6Addr>().is_ok()
        && port.parse::<u16>().is_ok()
    {
        let help = format!("write \"[{host}]:{port}\"");
        return Err(unusable("E105", "the brackets are missing", help));
    }
    if let Ok(address @ IpAddr::V6(_)) = plain.parse() {
        let help = form(&format!("[{address}]"));
        return Err(unusable("E105", "the port is missing", help));
    }
    let port = plain.strip_prefix(':').unwrap_or(plain);
    if port.parse::<u16>().is_ok() {
        let help = format!("write \"localhost:{port}\"");
        return Err(unusable("E105", "a port alone", help));
    }
    let authority = Authority::from_str(plain)
        .ok()
        .filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
        .ok_or_else(|| unusable("E105", "not host and port", form("localhost")))?;
    let host = authority.host();
    let port = match authority.port_u16() {
        Some(port) if port != 0 => port,
        Some(_) => return Err(unusable("E105", "port 0 is nobody's", form(host))),
        None if authority.as_str() == host => {
            return Err(unusable("E105", "the port is missing", form(host)));
        }
        None => {
            return Err(unusable(
                "E105",
                "the port is no number up to 65535",
                form(host),
            ));
        }
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Ok(Endpoint {
        name: authority.as_str().into(),
        addresses: bare
            .parse::<IpAddr>()
            .map(|ip| SocketAddr::new(ip, port))
            .into_iter()
            .collect(),
    })
}

/// A path, without query, as a request line would carry it.
fn check_path(text: &str) -> Result<(), &'static str> {
    if !text.starts_with('/') {
        return Err("a path begins with a slash");
    }
    match PathAndQuery::from_str(text) {
        Ok(path) if path.query().is_none() && path.path() == text => Ok(()),
        Ok(_) => Err("a path has no ? and no #"),
        Err(_) => Err("a character that no path has"),
    }
}

/// Sent to whoever asks for TLS to a backend.
const TLS_TO_COME: &str =
    "wharf speaks plaintext HTTP/2 to backends; TLS to backends is not built yet";
const DEFAULT_PORT: u16 = 8080;
/// What one connection may make this process hold before a request is even known.
const HEADER_BYTES_MAX: u64 = 64 << 10;
const HEADER_FIELDS_MAX: u64 = 256;
const LIVE_PATH: &str = "/healthz";
const WORKERS_MAX: u64 = 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECTIONS_PER_ENDPOINT: usize = 4;
const PENDING: usize = 1024;
const SHORTEST: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);
const NAME_BYTES_MAX: usize = 64;
