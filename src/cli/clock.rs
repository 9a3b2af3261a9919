//! The time that a command works with: `SOURCE_DATE_EPOCH`, for output that can be made again, or the clock.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::error::CliError;

/// The first time, in seconds since 1970, that an entry of a tar archive has no room for.
const MAX_ARCHIVE_TIME: i64 = 1 << 33;

/// Returns `SOURCE_DATE_EPOCH` in seconds, or `None` if it is not set.
fn source_date_epoch() -> Result<Option<i64>, CliError> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = value.to_str().and_then(|text| text.parse().ok());
    seconds
        .filter(|seconds| (0..MAX_ARCHIVE_TIME).contains(seconds))
        .map(Some)
        .ok_or_else(|| CliError::usage("SOURCE_DATE_EPOCH is not a number of seconds since 1970"))
}

/// Returns the time for the entries of an archive: `SOURCE_DATE_EPOCH` or 0, so that it never differs by itself.
pub(super) fn archive_time() -> Result<u64, CliError> {
    Ok(source_date_epoch()?.map_or(0, i64::unsigned_abs))
}

/// Returns the day, in UTC, on which a lock is made: that of `SOURCE_DATE_EPOCH` or today.
pub(super) fn today() -> Result<Date, CliError> {
    let stated = source_date_epoch()?.and_then(|seconds| Timestamp::from_second(seconds).ok());
    Ok(stated.unwrap_or_else(Timestamp::now).to_zoned(TimeZone::UTC).date())
}
