//! Quantities (`500m`, `1Gi`) in the one form that the server gives back.

use serde_json::{Value, json};

const BINARY: &[&str] = &["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: &[(&str, i32)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// The canonical form of a quantity; what is none stays as it is.
pub(crate) fn canonical(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return value.clone(),
    };
    form(&text).map_or_else(|| value.clone(), |form| json!(form))
}

fn form(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = i32::try_from(fraction.len()).ok()?;
    if let Some(power) = BINARY.iter().position(|one| *one == suffix) {
        let factor = 1024_i128.checked_pow(u32::try_from(power).ok()? + 1)?;
        let bytes = digits.checked_mul(factor)?;
        let fraction = 10_i128.checked_pow(u32::try_from(scale).ok()?)?;
        // With a fraction of a byte, it is counted in thousandths.
        return Some(if bytes % fraction == 0 {
            binary(bytes / fraction)
        } else {
            decimal(bytes, -scale)
        });
    }
    let exponent = match DECIMAL.iter().find(|(name, _)| *name == suffix) {
        Some((_, exponent)) => *exponent,
        None => suffix.strip_prefix(['e', 'E'])?.parse().ok()?,
    };
    Some(decimal(digits, exponent - scale))
}

/// The biggest binary unit that leaves a whole number.
fn binary(mut number: i128) -> String {
    let mut power = 0;
    while number != 0 && number % 1024 == 0 && power < BINARY.len() {
        number /= 1024;
        power += 1;
    }
    let unit = power
        .checked_sub(1)
        .and_then(|at| BINARY.get(at))
        .copied()
        .unwrap_or_default();
    format!("{number}{unit}")
}

/// The biggest unit that leaves a whole number.
fn decimal(mut number: i128, mut exponent: i32) -> String {
    if number == 0 {
        return "0".to_owned();
    }
    while number % 10 == 0 {
        number /= 10;
        exponent += 1;
    }
    let unit = DECIMAL
        .iter()
        .rev()
        .find(|(_, unit)| *unit <= exponent)
        .or(DECIMAL.first());
    let (name, unit) = unit.copied().unwrap_or_default();
    let zeros = usize::try_from(exponent - unit).unwrap_or_default();
    format!("{number}{}{name}", "0".repeat(zeros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_one_form() {
        for (given, wanted) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("100Mi", "100Mi"),
            ("1500M", "1500M"),
            ("0", "0"),
            ("0.5Gi", "512Mi"),
            ("1e3", "1k"),
            ("110", "110"),
        ] {
            assert_eq!(form(given).as_deref(), Some(wanted), "{given}");
        }
    }
}
