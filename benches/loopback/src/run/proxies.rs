//! The proxies that are put side by side: where each is found, what starts it, which version it is, and what installs it where
//! it is missing. Starts nothing itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::child::Program;
use super::machine::said_by;

/// Envoy's configuration, with names in the place of the two ports.
const ENVOY: &str = include_str!("../../../../peers/envoy.yaml");
/// nginx's, the same way; it has a folder, too.
const NGINX: &str = include_str!("../../../../peers/nginx.conf");
/// What the small peers are built from.
const PEERS_LOCK: &str = include_str!("../../../../peers/Cargo.lock");

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proxy {
    /// What is measured.
    Wharf,
    /// Moves bytes over one shared connection and looks at none of them: what the sockets alone cost.
    Floor,
    /// tonic-web's layer in front of hyper's client.
    Hyper,
    /// Envoy with its gRPC-Web filter.
    Envoy,
    /// Pingora with its gRPC-Web module.
    Pingora,
    /// nginx, which forwards gRPC as it is and knows no gRPC-Web.
    Nginx,
}

impl Proxy {
    /// All, in the order of a report.
    pub(super) const ALL: [Self; 6] = [
        Self::Wharf,
        Self::Floor,
        Self::Hyper,
        Self::Envoy,
        Self::Pingora,
        Self::Nginx,
    ];

    /// As it is called on command lines and in files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wharf => "wharf",
            Self::Floor => "floor",
            Self::Hyper => "hyper",
            Self::Envoy => "envoy",
            Self::Pingora => "pingora",
            Self::Nginx => "nginx",
        }
    }

    /// The one of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|proxy| proxy.name() == name)
    }
}

/// Where programs are.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// The release binary that is measured.
    pub(super) wharf: PathBuf,
    /// This program.
    pub(super) own: PathBuf,
    /// What scripts/tools has filled.
    pub(super) tools: PathBuf,
    /// Logs and generated configurations.
    pub(super) out: PathBuf,
}

/// What a proxy is asked to do in one cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// Where clients come in.
    pub(super) listen: u16,
    /// Where the backend listens; for the floor, the floor's own.
    pub(super) backend: u16,
    /// Event loops. Only wharf is ever asked for more than one.
    pub(super) workers: usize,
}

impl Places {
    fn file(&self, proxy: Proxy) -> PathBuf {
        match proxy {
            Proxy::Wharf => self.wharf.clone(),
            Proxy::Floor => self.own.clone(),
            Proxy::Envoy => self.tools.join("envoy/envoy/_bin/envoy"),
            Proxy::Hyper => self.tools.join("peers/release/peer-hyper"),
            Proxy::Pingora => self.tools.join("peers/release/peer-pingora"),
            // Debian's; /usr/sbin is not on everybody's PATH.
            Proxy::Nginx => PathBuf::from("/usr/sbin/nginx"),
        }
    }

    /// What to do about one that is not there.
    pub(super) fn missing(&self, proxy: Proxy) -> Option<String> {
        let file = self.file(proxy);
        if file.is_file() {
            return None;
        }
        let cure = match proxy {
            Proxy::Wharf => "`cargo build --release` builds it, or --wharf names another",
            Proxy::Floor => "this program has lost itself",
            Proxy::Envoy => "`scripts/tools envoy` installs it",
            Proxy::Hyper | Proxy::Pingora => "`scripts/tools peers` builds it",
            Proxy::Nginx => "`scripts/tools nginx` installs it",
        };
        Some(format!(
            "{} is missing ({}): {cure}",
            proxy.name(),
            file.display()
        ))
    }

    /// What starts it. Every proxy has one worker and no access log but wharf, which has its default settings.
    pub(super) fn program(&self, proxy: Proxy, task: Task) -> Result<Program, String> {
        let listen = format!("127.0.0.1:{}", task.listen);
        let backend = format!("127.0.0.1:{}", task.backend);
        let file = self.file(proxy);
        let arguments: Vec<OsString> = match proxy {
            Proxy::Wharf => {
                let workers = task.workers.to_string();
                words(&[
                    "run",
                    "--workers",
                    &workers,
                    "--listen",
                    &listen,
                    "--backend",
                    &backend,
                ])
            }
            Proxy::Floor => words(&[
                "floor",
                "--kind",
                "mux",
                "--listen",
                &listen,
                "--backend",
                &backend,
            ]),
            Proxy::Envoy => {
                let configuration = self.configuration("envoy.yaml", ENVOY, task)?;
                let mut arguments = words(&[
                    "--concurrency",
                    "1",
                    "--use-dynamic-base-id",
                    "--log-level",
                    "error",
                    "-c",
                ]);
                arguments.push(configuration.into());
                arguments
            }
            Proxy::Nginx => {
                let configuration = self.configuration("nginx.conf", NGINX, task)?;
                // Its own words for "nowhere": until it has read its configuration it would write below /var/log.
                let mut arguments = words(&["-e", "stderr", "-c"]);
                arguments.push(configuration.into());
                arguments
            }
            Proxy::Hyper | Proxy::Pingora => {
                words(&[&task.listen.to_string(), &task.backend.to_string()])
            }
        };
        let mut program = Program::new(file, arguments);
        program.log = Some(self.out.join(format!("{}.log", proxy.name())));
        Ok(program)
    }

    /// Writes a peer's configuration for this task; where it is.
    fn configuration(&self, name: &str, text: &str, task: Task) -> Result<PathBuf, String> {
        let unable = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        let folder = std::fs::canonicalize(&self.out).map_err(|error| unable(&self.out, error))?;
        let path = folder.join(name);
        let text = text
            .replace("LISTEN_PORT", &task.listen.to_string())
            .replace("BACKEND_PORT", &task.backend.to_string())
            .replace("FOLDER", &folder.display().to_string());
        std::fs::write(&path, text).map_err(|error| unable(&path, error))?;
        Ok(path)
    }

    /// A program that listens and does nothing before: what every program needs from exec to listening.
    pub(super) fn listener(&self, task: Task) -> Program {
        let listen = format!("127.0.0.1:{}", task.listen);
        let backend = format!("127.0.0.1:{}", task.backend);
        Program::new(
            &self.own,
            words(&[
                "floor",
                "--kind",
                "one-to-one",
                "--listen",
                &listen,
                "--backend",
                &backend,
            ]),
        )
    }

    /// Its version, as exactly as it can be told.
    pub(super) fn version(&self, proxy: Proxy) -> String {
        match proxy {
            Proxy::Wharf => {
                let version = said_by(Command::new(&self.wharf).arg("--version"));
                let commit =
                    said_by(git().args(["describe", "--always", "--dirty", "--abbrev=12"]));
                // The last folder tells a release build from another.
                let built = self.wharf.parent().and_then(Path::file_name);
                let built = built.map_or_else(String::new, |name| name.display().to_string());
                format!("{version}, {built} build, checkout {commit}")
            }
            Proxy::Floor => {
                "byte proxy with one shared connection behind, of the same checkout".to_owned()
            }
            Proxy::Envoy => {
                let said = said_by(Command::new(self.file(proxy)).arg("--version"));
                let version = said.rsplit_once("version: ").map(|(_, rest)| rest);
                format!("Envoy {}, PyPI build", version.unwrap_or(&said))
            }
            Proxy::Hyper => versions_of(&["tonic-web", "hyper", "hyper-util", "h2", "tokio"]),
            Proxy::Pingora => versions_of(&["pingora-proxy", "h2", "tokio"]),
            Proxy::Nginx => {
                // It says so on stderr.
                let mut said = Command::new("sh");
                said.args(["-c", "\"$0\" -v 2>&1"]).arg(self.file(proxy));
                format!("{}, Debian's", said_by(&mut said))
            }
        }
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    git
}

fn versions_of(crates: &[&str]) -> String {
    let told: Vec<_> = crates
        .iter()
        .map(|name| format!("{name} {}", locked(PEERS_LOCK, name).unwrap_or("unknown")))
        .collect();
    told.join(", ")
}

/// The version of a crate in a Cargo.lock.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = lock.lines();
    lines.find(|line| *line == format!("name = \"{name}\""))?;
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            wharf: PathBuf::from("/nowhere/wharf"),
            own: PathBuf::from("/proc/self/exe"),
            tools: PathBuf::from("/nowhere/tools"),
            out: std::env::temp_dir(),
        }
    }

    const TASK: Task = Task {
        listen: 21_000,
        backend: 21_001,
        workers: 1,
    };

    #[test]
    fn one_that_is_missing_is_named_with_what_installs_it() {
        let missing = |proxy| places().missing(proxy).expect("it is nowhere");
        assert!(missing(Proxy::Envoy).contains("scripts/tools envoy"));
        assert!(missing(Proxy::Hyper).starts_with("hyper is missing (/nowhere/tools/"));
        assert!(missing(Proxy::Pingora).contains("scripts/tools peers"));
        // Where it is there is nothing to say.
        let nginx = places().missing(Proxy::Nginx);
        assert!(nginx.is_none_or(|text| text.contains("scripts/tools nginx")));
        assert!(missing(Proxy::Wharf).contains("cargo build --release"));
    }

    #[test]
    fn wharf_runs_with_its_default_settings() {
        let program = places().program(Proxy::Wharf, TASK).expect("a program");
        let arguments: Vec<_> = program
            .arguments
            .iter()
            .filter_map(|word| word.to_str())
            .collect();
        assert_eq!(
            arguments.join(" "),
            "run --workers 1 --listen 127.0.0.1:21000 --backend 127.0.0.1:21001"
        );
    }

    #[test]
    fn a_configuration_has_ports_and_no_names_left_in_it() {
        for proxy in [Proxy::Envoy, Proxy::Nginx] {
            let program = places().program(proxy, TASK).expect("a program");
            let file = program.arguments.last().expect("the configuration");
            let text = std::fs::read_to_string(file).expect("it was written");
            assert!(text.contains("21000") && text.contains("21001"), "{text}");
            for name in ["LISTEN_PORT", "BACKEND_PORT", "FOLDER"] {
                let lines = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with('#'));
                assert!(lines.into_iter().all(|line| !line.contains(name)), "{text}");
            }
        }
    }

    #[test]
    fn versions_come_from_what_the_peers_are_locked_to() {
        let lock = "[[package]]\nname = \"hyper-util\"\nversion = \"0.1.21\"\n\n[[package]]\nname = \"hyper\"\nversion = \"1.12.0\"\n";
        assert_eq!(locked(lock, "hyper"), Some("1.12.0"));
        assert_eq!(locked(lock, "tokio"), None);
        for proxy in [Proxy::Hyper, Proxy::Pingora] {
            assert!(!places().version(proxy).contains("unknown"));
        }
    }

    #[test]
    fn a_proxy_is_known_by_its_name() {
        for proxy in Proxy::ALL {
            assert_eq!(Proxy::named(proxy.name()), Some(proxy));
        }
        assert_eq!(Proxy::named("traefik"), None);
    }
}
