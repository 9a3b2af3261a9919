//! Every file as it is written, and the errors.

use std::fmt::Write as _;

use super::*;
use crate::catalog::Catalog;

const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

fn request(target: Target, os: Os, registry: &str) -> Request {
    Request {
        target,
        os,
        registry: registry.parse().unwrap(),
        ca: registry.starts_with("https").then(|| CA.parse().unwrap()),
        hosts: Vec::new(),
        containerd_config: None,
    }
}

fn shown(request: &Request) -> String {
    let mut text = String::new();
    for file in request.files().unwrap() {
        let _ = write!(text, "==> {} <==\n{}\n", file.path, file.text);
    }
    text
}

#[test]
fn files_of_every_target() {
    for target in Target::ALL {
        let linux = request(target, Os::Linux, "https://registry.site.local:5000");
        insta::assert_snapshot!(format!("{target}-linux"), shown(&linux));
        let windows = Request { os: Os::Windows, ..linux };
        if target.runs_on_windows() {
            insta::assert_snapshot!(format!("{target}-windows"), shown(&windows));
        } else {
            assert_eq!(windows.files(), Err(NodeConfigError::NoWindows(target)));
        }
    }
}

#[test]
fn named_hosts_go_by_path_and_the_others_stay() {
    for target in Target::ALL {
        let mut request = request(target, Os::Linux, "http://127.0.0.1:5000");
        request.hosts = vec!["quay.io".parse().unwrap(), "registry.example.com:8443".parse().unwrap()];
        let text = shown(&request);
        assert!(text.contains("127.0.0.1:5000/v2/quay.io") || target == Target::Crio, "{text}");
        assert!(!text.contains("_default") && !text.contains("\"*\""), "{text}");
        assert!(!text.contains("ca.crt") || target == Target::Docker, "{text}");
    }
}

#[test]
fn every_hosts_file_has_what_containerd_needs() {
    for target in [Target::Containerd, Target::K0s, Target::Docker] {
        for os in [Os::Linux, Os::Windows] {
            let request = request(target, os, "https://registry.site.local:5000");
            let files = request.files().unwrap();
            let hosts: Vec<_> = files.iter().filter(|file| file.path.ends_with("hosts.toml")).collect();
            assert!(!hosts.is_empty());
            for file in hosts {
                let table = file.text.find("\n[host]\n").unwrap();
                for key in ["server = ", "capabilities = ", "ca = "] {
                    // A key after the table would belong to the table.
                    assert!(file.text.find(key).unwrap() < table, "{}", file.text);
                }
                let folder = file.path.strip_suffix("hosts.toml").unwrap();
                let ca = file.text.split("ca = \"").nth(1).unwrap().split('"').next().unwrap();
                let ca = match ca.strip_prefix("../") {
                    Some(name) => {
                        format!("{}/{name}", folder.trim_end_matches('/').rsplit_once('/').unwrap().0)
                    }
                    None => format!("{folder}{ca}"),
                };
                assert!(files.iter().any(|file| file.path == ca), "{ca}");
            }
            if os == Os::Windows {
                let bad = |file: &&NodeFile| file.path.contains([':', '\\']);
                assert_eq!(files.iter().find(bad), None);
            }
        }
    }
}

#[test]
fn yaml_is_yaml() {
    for target in [Target::K3s, Target::Rke2, Target::Talos] {
        let request = request(target, Os::Linux, "https://registry.site.local:5000");
        let files = request.files().unwrap();
        for file in files.iter().filter(|file| file.path.contains(".yaml")) {
            for document in file.text.split("\n---\n") {
                let value: serde_json::Value = serde_saphyr::from_str(document).unwrap();
                assert!(value.is_object(), "{document}");
            }
        }
        if target != Target::Talos {
            let file = files.iter().find(|file| file.path.ends_with("registries.yaml")).unwrap();
            let value: serde_json::Value = serde_saphyr::from_str(&file.text).unwrap();
            assert_eq!(value["mirrors"]["*"]["endpoint"][0], "https://registry.site.local:5000");
            assert_eq!(
                value["configs"]["registry.site.local:5000"]["tls"]["ca_file"],
                format!("/etc/rancher/{target}/site-ca.crt")
            );
        }
    }
}

#[test]
fn k0s_has_the_drop_in_of_its_release() {
    let mut request = request(Target::K0s, Os::Linux, "https://registry.site.local:5000");
    for (version, plugin) in [(2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.images")] {
        request.containerd_config = Some(version);
        let files = request.files().unwrap();
        let drop_in = files.iter().find(|file| file.path == "etc/k0s/containerd.d/dray.toml").unwrap();
        assert!(drop_in.text.contains(&format!("version = {version}\n")), "{}", drop_in.text);
        assert!(drop_in.text.contains(plugin), "{}", drop_in.text);
    }
}

#[test]
fn certificates() {
    let ca = |text: &str| text.parse::<CertificateAuthority>().map(|ca| ca.0);
    assert_eq!(ca(&CA.replace('\n', "\r\n")).unwrap(), format!("{CA}\n"));
    assert_eq!(ca("0\u{82}"), Err(NodeConfigError::NotACertificate));
    assert_eq!(ca("-----BEGIN CERTIFICATE-----\nMIIB"), Err(NodeConfigError::NotACertificate));
    assert_eq!(ca("-----BEGIN EC PRIVATE KEY-----"), Err(NodeConfigError::PrivateKey));
    let mut http = request(Target::Containerd, Os::Linux, "http://127.0.0.1:5000");
    http.ca = Some(CA.parse().unwrap());
    assert!(matches!(http.files(), Err(NodeConfigError::CaWithoutTls(_))));
}

#[test]
fn the_default_hosts_are_those_of_the_catalog() {
    let catalog = Catalog::builtin().unwrap();
    for summary in catalog.releases(None).unwrap() {
        for component in catalog.release(&summary.id).unwrap().components {
            let host = component.reference.host().to_owned();
            assert!(CATALOG_HOSTS.contains(&host.as_str()), "{}: {host}", summary.id);
        }
    }
}
