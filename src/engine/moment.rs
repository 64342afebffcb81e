//! Times of day as JavaScript sends them: milliseconds since 1970, or the text of a `Date`.

use serde_json::Value;

/// Latest time of a JavaScript `Date`, ms since 1970.
const MS_MAX: f64 = 8.64e15;

/// ms since 1970 of a number of them, or of `2026-01-31T12:00:00.000Z`; `None`: it is neither, or before 1970.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range by the check
pub fn read(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_f64().filter(|ms| (0.0..=MS_MAX).contains(ms)).map(|ms| ms as u64),
        Value::String(text) => read_text(text),
        _ => None,
    }
}

/// `2026-01-31T12:00:00.000Z`, as `Date.toISOString` writes it.
pub fn write(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date_of(i64::try_from(days).unwrap_or(i64::MAX / 2));
    let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", in_day % 1000)
}

/// RFC 3339: a date, 'T', a time with or without a fraction, and 'Z' or an offset.
fn read_text(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let ms = (days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + thousandths(fraction)?;
    u64::try_from(ms - offset_minutes(zone)? * 60_000).ok()
}

/// Numbers of exactly so many digits.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let mut out = [0; 3];
    for (number, digits) in out.iter_mut().zip(digits) {
        *number = whole(parts.next()?, digits)?;
    }
    parts.next().is_none().then_some(out)
}

fn whole(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn thousandths(fraction: &str) -> Option<i64> {
    whole(fraction, fraction.len().clamp(1, 18))?;
    format!("{fraction:0<3}")[..3].parse().ok()
}

fn offset_minutes(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = if let Some(rest) = zone.strip_prefix('-') { (-1, rest) } else { (1, zone.strip_prefix('+')?) };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (whole(hours, 2)?, whole(minutes, 2)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01. Years are counted from March, so that the day that leap years add is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    365 * year + year / 4 - year / 100 + year / 400 + (153 * months_since_march + 2) / 5 + day - 1 - 719_468
}

/// The opposite: year, month and day. Counted from the first of March of the year 0, so that leap days are last.
fn date_of(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + 719_468;
    let (era, in_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * months_since_march + 2) / 5 + 1;
    let month = (months_since_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_and_texts_of_dates() {
        for (value, ms) in [
            (json!(0), 0),
            (json!(1_769_860_800_123_u64), 1_769_860_800_123),
            (json!(1.5), 1),
            (json!("1970-01-01T00:00:00.000Z"), 0),
            (json!("2000-02-29T23:59:59.999Z"), 951_868_799_999),
            (json!("2026-01-31T12:00:00Z"), 1_769_860_800_000),
            (json!("2026-01-31T13:30:00.5+01:30"), 1_769_860_800_500),
            (json!("2026-01-31t04:00:00.123456-08:00"), 1_769_860_800_123),
            (json!("2024-12-31T00:00:00Z"), 1_735_603_200_000),
        ] {
            assert_eq!(read(&value), Some(ms), "{value}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_769_860_800_123, "2026-01-31T12:00:00.123Z"),
        ] {
            assert_eq!(write(ms), text);
        }
        for day in 0..200_000_u64 {
            let ms = day * 86_400_000 + day;
            assert_eq!(read(&write(ms).into()), Some(ms), "{day}");
        }
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for value in [
            json!(-1),
            json!(1e16),
            json!(null),
            json!({}),
            json!(""),
            json!("now"),
            json!("2026-01-31"),
            json!("2026-02-29T00:00:00Z"),
            json!("2026-13-01T00:00:00Z"),
            json!("2026-01-01T24:00:00Z"),
            json!("2026-01-01T00:00:00"),
            json!("2026-01-01T00:00:00.Z"),
            json!("2026-1-1T00:00:00Z"),
            json!("2026-01-01T00:00:00+1:00"),
            json!("1969-12-31T23:59:59Z"),
            json!("+026-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(&value), None, "{value}");
        }
    }
}
