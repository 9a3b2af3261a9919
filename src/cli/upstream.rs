//! The upstream as the flags and the environment say: mirrors, plain HTTP, certificate authorities, credentials.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use dray::input;
use dray::resolve::GapKind;
use dray::site::RegistryUrl;
use dray::upstream::{CredentialStore, Options, Pusher, Upstream, UpstreamError};

use super::error::{CliError, Kind};
use super::global::Global;

/// The largest file of credentials that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A reader of registries for this run of the command.
pub(crate) fn connect(global: &Global) -> Result<Upstream, CliError> {
    Ok(Upstream::new(options(global)?)?)
}

/// What can push into registries, for this run of the command.
pub(crate) fn pusher(global: &Global) -> Result<Pusher, CliError> {
    Ok(Pusher::new(options(global)?)?)
}

/// A reader of the registry at the site.
pub(crate) fn connect_site(global: &Global, url: &RegistryUrl) -> Result<Upstream, CliError> {
    let mut options = options(global)?;
    if !url.is_https() {
        options.plain_http.insert(url.authority().to_owned());
    }
    Ok(Upstream::new(options)?)
}

/// The files that credentials may be read from.
pub(crate) fn credential_files() -> Vec<PathBuf> {
    match Places::of_this_process() {
        Places::Named(file) => vec![file],
        Places::Usual(files) => files,
    }
}

fn options(global: &Global) -> Result<Options, CliError> {
    Ok(Options {
        endpoints: global.upstream.iter().cloned().collect(),
        plain_http: global.plain_http.iter().cloned().collect(),
        ca_files: global.ca_file.clone(),
        credentials: Places::of_this_process().read()?,
        per_host: global.concurrency.into(),
        ..Options::default()
    })
}

/// Returns the exit code that an error of the upstream ends the command with.
pub(crate) fn exit_kind(error: &UpstreamError) -> Kind {
    match error {
        UpstreamError::Setup(_) => Kind::Usage,
        UpstreamError::Read { .. } => gap_exit_kind(GapKind::of(error)),
        UpstreamError::Push { .. } => match GapKind::of(error) {
            GapKind::Damaged => Kind::Verification,
            _ => Kind::Failed,
        },
    }
}

/// Returns the exit code for content that cannot be had for these reasons, when `reached` says whether other content was
/// read.
pub(crate) fn gaps_exit_kind(gaps: &BTreeSet<GapKind>, reached: bool) -> Kind {
    let mut kinds = gaps.iter().map(|kind| gap_exit_kind(*kind));
    let Some(first) = kinds.next() else { return Kind::Incomplete };
    let same = kinds.all(|kind| kind == first);
    if same && !(reached && first == Kind::Failed) { first } else { Kind::Incomplete }
}

/// Returns the exit code for content that cannot be had for this reason alone.
pub(crate) fn gap_exit_kind(kind: GapKind) -> Kind {
    match kind {
        GapKind::Unreachable | GapKind::Credentials => Kind::Failed,
        GapKind::Damaged => Kind::Verification,
        GapKind::Missing
        | GapKind::Denied
        | GapKind::RateLimited
        | GapKind::Unreadable
        | GapKind::Schema1
        | GapKind::Platform
        | GapKind::Scope => Kind::Incomplete,
    }
}

impl From<UpstreamError> for CliError {
    fn from(error: UpstreamError) -> Self {
        let kind = exit_kind(&error);
        let hint = error.hint();
        let error = Self::new(kind, error);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// The files that credentials are looked for in, in podman's order
/// (containers/image `pkg/docker/config/config.go`, `getAuthFilePaths`).
#[derive(Debug, PartialEq, Eq)]
enum Places {
    /// The file that `REGISTRY_AUTH_FILE` names, which must be there; no others.
    Named(PathBuf),
    /// Podman's two files, then Docker's; any of them may be absent.
    Usual(Vec<PathBuf>),
}

impl Places {
    fn of_this_process() -> Self {
        Self::find(|name| std::env::var_os(name), std::env::home_dir().as_deref(), user_id())
    }

    fn find(variable: impl Fn(&str) -> Option<OsString>, home: Option<&Path>, user_id: Option<u32>) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(file) = path("REGISTRY_AUTH_FILE") {
            return Self::Named(file);
        }
        let in_home = |folder: &str| home.map(|home| home.join(folder));
        let runtime = path("XDG_RUNTIME_DIR")
            .map(|folder| folder.join("containers"))
            .or_else(|| user_id.map(|id| PathBuf::from(format!("/run/containers/{id}"))));
        let config =
            path("XDG_CONFIG_HOME").or_else(|| in_home(".config")).map(|folder| folder.join("containers"));
        let docker = path("DOCKER_CONFIG").or_else(|| in_home(".docker"));
        let files = [
            runtime.map(|folder| folder.join("auth.json")),
            config.map(|folder| folder.join("auth.json")),
            docker.map(|folder| folder.join("config.json")),
        ];
        Self::Usual(files.into_iter().flatten().collect())
    }

    fn read(&self) -> Result<CredentialStore, CliError> {
        let mut store = CredentialStore::new();
        match self {
            Self::Named(file) => {
                let document = input::read_text(file, MAX_FILE).map_err(|error| {
                    CliError::from(error)
                        .hint("REGISTRY_AUTH_FILE names this file; unset it, or `podman login` writes it")
                })?;
                store.add(file.display().to_string(), document.as_bytes()).map_err(CliError::failed)?;
            }
            Self::Usual(files) => {
                for file in files {
                    let name = file.display().to_string();
                    match input::read_text(file, MAX_FILE) {
                        Ok(document) => store.add(name, document.as_bytes()).map_err(CliError::failed)?,
                        Err(error) if error.is_missing() => store.add_absent(name),
                        // Often left behind by another user; most images need no credentials at all.
                        Err(error) => {
                            tracing::warn!("no credentials are read from {name}: {error}");
                            store.add_absent(format!("{name} ({error})"));
                        }
                    }
                }
            }
        }
        Ok(store)
    }
}

/// The user's number, which podman's file is named after on machines without `XDG_RUNTIME_DIR`.
#[cfg(target_os = "linux")]
fn user_id() -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").ok().map(|process| process.uid())
}

/// Podman names files after users on Linux only.
#[cfg(not(target_os = "linux"))]
fn user_id() -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_says_what_failures_have_in_common() {
        use GapKind::{Credentials, Damaged, Denied, Missing, Unreachable};
        for (gaps, reached, expected) in [
            (&[Missing, Denied][..], true, Kind::Incomplete),
            (&[Missing, Damaged], true, Kind::Incomplete),
            (&[Damaged], true, Kind::Verification),
            (&[Unreachable, Credentials], false, Kind::Failed),
            (&[Unreachable], true, Kind::Incomplete),
            (&[Unreachable, Missing], false, Kind::Incomplete),
        ] {
            assert_eq!(gaps_exit_kind(&gaps.iter().copied().collect(), reached), expected, "{gaps:?}");
        }
    }

    fn find(variables: &[(&str, &str)], user_id: Option<u32>) -> Places {
        let variable = |name: &str| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        };
        Places::find(variable, Some(Path::new("/home/me")), user_id)
    }

    fn usual(files: &[&str]) -> Places {
        Places::Usual(files.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn looks_where_podman_looks() {
        assert_eq!(
            find(&[], Some(1000)),
            usual(&[
                "/run/containers/1000/auth.json",
                "/home/me/.config/containers/auth.json",
                "/home/me/.docker/config.json",
            ])
        );
        let set = [
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("XDG_CONFIG_HOME", "/config"),
            ("DOCKER_CONFIG", "/docker"),
            ("REGISTRY_AUTH_FILE", ""),
        ];
        assert_eq!(
            find(&set, Some(7)),
            usual(&[
                "/run/user/7/containers/auth.json",
                "/config/containers/auth.json",
                "/docker/config.json"
            ])
        );
        assert_eq!(
            find(&[("REGISTRY_AUTH_FILE", "/x.json"), ("DOCKER_CONFIG", "/d")], None),
            Places::Named("/x.json".into())
        );
    }

    #[test]
    fn absent_files_are_remembered_for_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there.json");
        std::fs::write(&there, r#"{"auths":{}}"#).unwrap();
        let absent = folder.path().join("absent.json");
        let store = Places::Usual(vec![absent.clone(), there.clone()]).read().unwrap();
        assert_eq!(store.looked_in(), [absent.display().to_string(), there.display().to_string()]);
        let error = Places::Named(absent.clone()).read().unwrap_err();
        assert!(error.to_string().contains(&absent.display().to_string()), "{error}");
    }

    #[test]
    fn huge_and_broken_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        std::fs::write(&file, vec![b' '; 2 * 1024 * 1024]).unwrap();
        assert!(Places::Named(file.clone()).read().is_err());
        std::fs::write(&file, "{").unwrap();
        let error = Places::Usual(vec![file]).read().unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
