//! From text to single values: times, decimals, addresses, UUIDs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// First and last microsecond that RFC 3339 can write: years 0001 to 9999.
pub(super) const TIME_RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

const DAY: i64 = 86_400;
const SECOND: i64 = 1_000_000;

#[inline(always)]
fn two(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text.get(at)?.wrapping_sub(b'0'), text.get(at + 1)?.wrapping_sub(b'0'));
    if tens > 9 || ones > 9 { None } else { Some(i64::from(tens * 10 + ones)) }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
#[inline(always)]
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[inline(always)]
fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Microseconds of a time in RFC 3339: `2025-03-14T08:12:33.123456+07:00`. Without an offset it is UTC; a space may stand for the `T`. Digits
/// after the sixth are dropped. A leap second (`:60`) is the second after it.
#[inline]
pub(super) fn time(text: &[u8]) -> Option<i64> {
    let year = two(text, 0)? * 100 + two(text, 2)?;
    let (month, day) = (two(text, 5)?, two(text, 8)?);
    let (hour, minute, second) = (two(text, 11)?, two(text, 14)?, two(text, 17)?);
    if text[4] != b'-' || text[7] != b'-' || !matches!(text[10], b'T' | b't' | b' ') || text[13] != b':' || text[16] != b':' {
        return None;
    }
    if year == 0 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut micros = 0;
    if text.get(at) == Some(&b'.') {
        let start = at + 1;
        at = start;
        let mut unit = SECOND / 10;
        while let Some(digit) = text.get(at).filter(|byte| byte.is_ascii_digit()) {
            micros += i64::from(digit - b'0') * unit;
            unit /= 10;
            at += 1;
        }
        if at == start {
            return None;
        }
    }
    let offset = match &text[at..] {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), digits @ ..] if digits.len() == 5 && digits[2] == b':' => {
            let (hours, minutes) = (two(digits, 0)?, two(digits, 3)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    let time = seconds * SECOND + micros;
    TIME_RANGE.contains(&time).then_some(time)
}

/// A decimal number in JSON's notation, times 10^scale, exactly. `None` if it is no number, has more than `scale` digits after the point (but
/// for zeros), or more than `precision` digits in all.
pub(super) fn decimal(text: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let (negative, mut rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if !rest.first()?.is_ascii_digit() || (rest.len() > 1 && rest[0] == b'0' && rest[1].is_ascii_digit()) {
        return None;
    }
    // The value is `digits` times 10^exponent; zeros at the end wait in `zeros` until a digit follows, so that any number of them is fine.
    let (mut digits, mut zeros, mut exponent, mut fraction) = (0_i128, 0_u32, 0_i64, false);
    while let [byte, tail @ ..] = rest {
        match byte {
            b'0' if digits == 0 => exponent -= i64::from(fraction),
            b'0'..=b'9' => {
                exponent -= i64::from(fraction);
                if *byte == b'0' {
                    zeros += 1;
                } else {
                    digits = digits.checked_mul(10_i128.checked_pow(zeros + 1)?)?.checked_add(i128::from(byte - b'0'))?;
                    zeros = 0;
                }
            }
            b'.' if !fraction && tail.first().is_some_and(u8::is_ascii_digit) => fraction = true,
            b'e' | b'E' => {
                exponent = exponent.checked_add(power(tail)?)?;
                rest = &[];
                continue;
            }
            _ => return None,
        }
        rest = tail;
    }
    if digits == 0 {
        return Some(0);
    }
    let shift = exponent.checked_add(i64::from(zeros))?.checked_add(i64::from(scale))?;
    let value = if shift >= 0 {
        digits.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?
    } else {
        let divisor = 10_i128.checked_pow(u32::try_from(-shift).ok()?)?;
        if digits % divisor != 0 {
            return None;
        }
        digits / divisor
    };
    if value >= 10_i128.pow(u32::from(precision)) {
        return None;
    }
    Some(if negative { -value } else { value })
}

fn power(text: &[u8]) -> Option<i64> {
    let digits = match text {
        [b'+' | b'-', digits @ ..] => digits,
        digits => digits,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.trim_start_matches('+').parse().ok()
}

/// An address with an optional `/prefix`, in canonical text. `None` if it is no address.
#[inline]
pub(super) fn inet<'a>(text: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if is_ipv4(text) { Some(text) } else { other_inet(text, scratch) }
}

/// Whether it is an IPv4 address in the one canonical form: four numbers up to 255, without leading zeros.
#[inline]
fn is_ipv4(text: &[u8]) -> bool {
    let (mut number, mut digits, mut points) = (0_u32, 0, 0);
    for &byte in text {
        match byte.wrapping_sub(b'0') {
            digit @ 0..=9 if digits == 0 || (number > 0 && digits < 3) => {
                number = number * 10 + u32::from(digit);
                digits += 1;
            }
            _ if byte == b'.' && digits > 0 && number <= 255 => {
                (number, digits) = (0, 0);
                points += 1;
            }
            _ => return false,
        }
    }
    points == 3 && digits > 0 && number <= 255
}

fn other_inet<'a>(text: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, prefix) = match text.split_once('/') {
        None => (text, None),
        Some((host, prefix)) => (host, Some(prefix)),
    };
    if let Some(prefix) = prefix {
        let canonical = prefix == "0" || !prefix.starts_with('0');
        if !canonical || prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let longest = if host.contains(':') { 128 } else { 32 };
        prefix.parse::<u16>().ok().filter(|&bits| bits <= longest)?;
    }
    // What the standard library accepts as IPv4 is already canonical.
    if Ipv4Addr::from_str(host).is_ok() {
        return Some(text.as_bytes());
    }
    let address = IpAddr::V6(Ipv6Addr::from_str(host).ok()?);
    scratch.clear();
    scratch.extend_from_slice(address.to_string().as_bytes());
    if let Some(prefix) = prefix {
        scratch.push(b'/');
        scratch.extend_from_slice(prefix.as_bytes());
    }
    Some(scratch)
}
