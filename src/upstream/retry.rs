//! Which failures are worth another try, and when.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use url::Url;

use super::endpoint::authority;
use super::error::Problem;

/// From here on a pause is worth a warning.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// How often and how fast to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all; at least one is made.
    pub attempts: u32,
    /// The pause after the first failure; each further pause is twice as long, with random jitter.
    pub first_pause: Duration,
    /// The longest pause that back-off grows to.
    pub longest_pause: Duration,
    /// The longest wait that a registry may ask for in `Retry-After`; who asks for more is reported as an error.
    pub longest_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(20),
            longest_retry_after: Duration::from_mins(2),
        }
    }
}

/// One failed try.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) problem: Problem,
    pub(super) again: Again,
}

/// Whether another try may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The answer will be the same.
    Never,
    /// After a pause.
    Later,
    /// When the registry says.
    After(Duration),
}

impl Failure {
    pub(super) fn final_(problem: impl Into<Problem>) -> Self {
        Self { problem: problem.into(), again: Again::Never }
    }

    pub(super) fn passing(problem: impl Into<Problem>) -> Self {
        Self { problem: problem.into(), again: Again::Later }
    }
}

/// Counts the tries of one request.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: RetryPolicy,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Forgets earlier failures, after something got done.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next try; the problem itself when there is none.
    pub(super) fn pause(&mut self, failure: Failure) -> Result<Duration, Problem> {
        self.failures += 1;
        let pause = match failure.again {
            Again::Never => return Err(failure.problem),
            Again::Later => self.jittered(),
            Again::After(wait) if wait > self.policy.longest_retry_after => return Err(failure.problem),
            Again::After(wait) => wait,
        };
        if self.failures >= self.policy.attempts {
            return Err(failure.problem);
        }
        // A long wait without a word looks like a hang.
        let (problem, failures) = (failure.problem, self.failures);
        if pause >= LONG_PAUSE {
            tracing::warn!("trying again in {} s (failure {failures}): {problem}", pause.as_secs());
        } else {
            tracing::info!("trying again in {} ms (failure {failures}): {problem}", pause.as_millis());
        }
        Ok(pause)
    }

    /// Doubles with each failure; between half and all of it, so that clients do not come back all at once.
    fn jittered(&self) -> Duration {
        let doublings = (self.failures - 1).min(16);
        let full = self.policy.first_pause.saturating_mul(1 << doublings).min(self.policy.longest_pause);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// Whether a status may be another one the next time: overload, a restart, a bad gateway.
pub(super) fn is_passing(status: StatusCode) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        other => other.is_server_error(),
    }
}

/// `Retry-After`: seconds, or a date, which counts from `now` (RFC 9110, section 10.2.3).
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

/// What kind of failure a transport error is, in a request to `url`.
pub(super) fn classify(error: &reqwest::Error, url: &Url) -> Failure {
    let reason = root_cause(error);
    if error.is_builder() {
        Failure::final_(Problem::Answer(reason))
    } else if error.is_connect() {
        let host = authority(url);
        let unreachable = |reason| Failure::passing(Problem::Unreachable { host: host.clone(), reason });
        match find::<io::Error>(error) {
            Some(error) if is_tls(error) => Failure::final_(Problem::Tls { host, reason }),
            _ if error.is_timeout() => unreachable("it does not answer".into()),
            _ if error.is_dns() => unreachable(format!("the name is not known: {reason}")),
            _ => unreachable(reason),
        }
    } else if error.is_timeout() {
        Failure::passing(Problem::TimedOut)
    } else {
        Failure::passing(Problem::Broken(reason))
    }
}

/// Whether TLS refused: rustls reports certificates and protocols as invalid data, wrapped once or twice. They do not
/// get better.
fn is_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
    error.kind() == io::ErrorKind::InvalidData || inner.is_some_and(is_tls)
}

/// The first error of type `E` among the causes.
fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// What the innermost cause says. The outer ones repeat the URL, which may hold a signature.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy { attempts: 4, ..RetryPolicy::default() }
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut backoff = Backoff::new(policy());
        let mut pause = || backoff.pause(Failure::passing(Problem::TimedOut));
        for (least, most) in [(250, 500), (500, 1000), (1000, 2000)] {
            let pause = pause().unwrap().as_millis();
            assert!((least..=most).contains(&pause), "{pause}");
        }
        assert!(matches!(pause(), Err(Problem::TimedOut)));
    }

    #[test]
    fn registries_may_ask_to_wait_but_not_for_ever() {
        let mut backoff = Backoff::new(policy());
        let mut after = |seconds| {
            let wait = Duration::from_secs(seconds);
            backoff.pause(Failure {
                problem: Problem::RateLimited { wait: Some(wait) },
                again: Again::After(wait),
            })
        };
        assert_eq!(after(7).unwrap(), Duration::from_secs(7));
        let error = after(3600).unwrap_err().to_string();
        assert!(error.contains("asks to wait 3600 s"), "{error}");
    }

    #[test]
    fn final_failures_are_final() {
        let mut backoff = Backoff::new(policy());
        assert!(backoff.pause(Failure::final_(Problem::TimedOut)).is_err());
    }

    #[test]
    fn statuses() {
        for (status, expected) in
            [(200, false), (404, false), (408, true), (429, true), (500, true), (501, false), (503, true)]
        {
            assert_eq!(is_passing(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    #[test]
    fn reads_both_forms_of_retry_after() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1993 08:49:37 GMT", None),
            ("Sat, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    proptest! {
        #[test]
        fn retry_after_never_panics(value in ".{0,60}") {
            let _ = retry_after(&value, SystemTime::now());
        }

        #[test]
        fn pauses_stay_in_bounds(attempts in 1u32..200) {
            let mut backoff = Backoff::new(RetryPolicy { attempts, ..RetryPolicy::default() });
            let mut pauses = 0;
            while let Ok(pause) = backoff.pause(Failure::passing(Problem::TimedOut)) {
                prop_assert!(pause <= RetryPolicy::default().longest_pause);
                pauses += 1;
            }
            prop_assert_eq!(pauses, attempts - 1);
        }
    }
}
