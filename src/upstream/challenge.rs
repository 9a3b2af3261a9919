//! `WWW-Authenticate`: which proof of identity a registry wants (RFC 9110, section 11).

/// The longest header value that is looked at, in bytes.
const MAX_HEADER: usize = 8 * 1024;
/// The most challenges in one header value.
const MAX_CHALLENGES: usize = 16;

/// One way to authenticate that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from the server's token server.
    Bearer(Bearer),
}

/// Where to get a token and for what (distribution `docs/spec/auth/token.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The token server's URL, as the registry wrote it.
    pub(super) realm: String,
    /// The registry's name for itself.
    pub(super) service: Option<String>,
    /// What the token must allow; a registry may leave it out.
    pub(super) scope: Option<String>,
}

/// The challenges in one value of a `WWW-Authenticate` header; schemes that cannot be answered are left out.
///
/// Lenient where registries are sloppy (missing quotes, stray commas), because a challenge that is not understood ends
/// in a request without credentials, never in one with too many.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = &header[..header.floor_char_boundary(MAX_HEADER)];
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    while let Some((token, after)) = take_token(rest.trim_start_matches([' ', '\t', ','])) {
        let value = after.trim_start();
        if let Some(value) = value.strip_prefix('=') {
            let (value, after) = take_value(value.trim_start());
            // A parameter in front of any scheme belongs to nothing.
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((token.to_ascii_lowercase(), value));
            }
            rest = after;
        } else if found.len() < MAX_CHALLENGES {
            found.push((token.to_ascii_lowercase(), Vec::new()));
            rest = after;
        } else {
            break;
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| interpret(&scheme, parameters)).collect()
}

fn interpret(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let mut bearer = Bearer::default();
            for (name, value) in parameters {
                match name.as_str() {
                    "realm" => bearer.realm = value,
                    "service" => bearer.service = Some(value),
                    "scope" => bearer.scope = Some(value),
                    _ => {}
                }
            }
            (!bearer.realm.is_empty()).then_some(Challenge::Bearer(bearer))
        }
        _ => None,
    }
}

/// Splits a token (RFC 9110, section 5.6.2) off the front.
fn take_token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Splits a parameter's value off the front: a quoted string, or what stands before the next comma or space.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer(Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        })
    }

    #[test]
    fn what_registries_send() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/nginx:pull"),
                )],
            ),
            (
                r#"Bearer realm="https://quay.io/v2/auth" , service=quay.io"#,
                vec![bearer("https://quay.io/v2/auth", Some("quay.io"), None)],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://acr.example/oauth2/token",service="acr", Basic realm="x""#,
                vec![bearer("https://acr.example/oauth2/token", Some("acr"), None), Challenge::Basic],
            ),
            (
                r#"Negotiate, Digest realm="a, Basic b", BEARER REALM="https://r/t",SCOPE="a:b:pull,push""#,
                vec![bearer("https://r/t", None, Some("a:b:pull,push"))],
            ),
            (r#"Bearer realm="https://r/\"t""#, vec![bearer("https://r/\"t", None, None)]),
            ("Bearer realm=https://r/t,service=s", vec![bearer("https://r/t", Some("s"), None)]),
            (r#"Bearer realm="https://unclosed"#, vec![bearer("https://unclosed", None, None)]),
            ("Bearer", vec![]),
            ("", vec![]),
            (r#"realm="https://no-scheme""#, vec![]),
            ("Negotiate oYG2MIGzoAMK==", vec![]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(header in ".{0,300}") {
            let _ = parse(&header);
        }

        #[test]
        fn finds_what_was_written(
            realm in "https://[a-z]{1,10}/[a-z]{0,10}",
            service in "[ -~]{1,20}",
            others in proptest::collection::vec("[A-Z][a-z]{3,8}(, )?", 0..3),
        ) {
            prop_assume!(others.iter().all(|o| !o.eq_ignore_ascii_case("basic") && !o.eq_ignore_ascii_case("bearer")));
            let escaped = service.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("{} Bearer realm=\"{realm}\",service=\"{escaped}\"", others.join(" "));
            prop_assert!(parse(&header).contains(&bearer(&realm, Some(&service), None)));
        }

        #[test]
        fn bounded(count in 0usize..200) {
            prop_assert!(parse(&"Basic, ".repeat(count)).len() <= MAX_CHALLENGES);
        }
    }
}
