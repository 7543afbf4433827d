//! Quantities in the form in which the API server stores them (apimachinery `resource.Quantity`, "canonical form"), so that
//! a built object can be compared with a stored one. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Powers of 1000, from nano to exa, with their suffixes.
const DECIMAL: [(&str, i32); 10] =
    [("n", -3), ("u", -2), ("m", -1), ("", 0), ("k", 1), ("M", 2), ("G", 3), ("T", 4), ("P", 5), ("E", 6)];

/// Powers of 1024 with their suffixes.
const BINARY: [(&str, u32); 6] = [("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4), ("Pi", 5), ("Ei", 6)];

const NANO: i128 = 1_000_000_000;

/// The quantity as the API server writes it: `1024Mi` is `1Gi`, `0.5` is `500m`. A text that is no quantity, or one with
/// an exponent, stays as it is: the API server has the last word on it.
#[must_use]
pub fn canonical(quantity: &Quantity) -> Quantity {
    Quantity(canonical_text(&quantity.0).unwrap_or_else(|| quantity.0.clone()))
}

/// All quantities of a container's resources in canonical form.
#[must_use]
pub fn canonical_resources(mut resources: ResourceRequirements) -> ResourceRequirements {
    for amounts in [&mut resources.limits, &mut resources.requests] {
        *amounts = amounts.take().map(|map| {
            map.into_iter().map(|(name, amount)| (name, canonical(&amount))).collect::<BTreeMap<_, _>>()
        });
    }
    resources
}

fn canonical_text(text: &str) -> Option<String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let nanos = nanos(number)?;
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return binary(nanos.checked_mul(1024_i128.checked_pow(*power)?)?);
    }
    let (_, power) = DECIMAL.iter().find(|(name, _)| *name == suffix)?;
    let scale = 1000_i128.checked_pow(power.unsigned_abs())?;
    let nanos =
        if *power < 0 { (nanos % scale == 0).then_some(nanos / scale)? } else { nanos.checked_mul(scale)? };
    Some(decimal(nanos))
}

/// A decimal number in thousand-millionths.
fn nanos(number: &str) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: i128 = format!("{fraction:0<9}").parse().ok()?;
    whole.checked_mul(NANO)?.checked_add(fraction)
}

/// The largest power of 1024 that leaves a whole number; below 1024 and for fractions the decimal form.
fn binary(nanos: i128) -> Option<String> {
    if nanos % NANO != 0 || nanos / NANO < 1024 {
        return Some(decimal(nanos));
    }
    let mut value = nanos / NANO;
    let mut suffix = "";
    for (name, _) in BINARY {
        if value % 1024 != 0 {
            break;
        }
        value /= 1024;
        suffix = name;
    }
    Some(format!("{value}{suffix}"))
}

/// The largest power of 1000 that leaves a whole number.
fn decimal(nanos: i128) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    let mut value = nanos;
    let mut at = 0;
    while value % 1000 == 0 && at + 1 < DECIMAL.len() {
        value /= 1000;
        at += 1;
    }
    format!("{value}{}", DECIMAL[at].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_as_the_api_server_writes_them() {
        for (text, expected) in [
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1Gi", "1Gi"),
            ("10Gi", "10Gi"),
            ("0.5Gi", "512Mi"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("1.5", "1500m"),
            ("2", "2"),
            ("1000", "1k"),
            ("1000000", "1M"),
            ("128974848", "128974848"),
            ("1024", "1024"),
            ("512Ki", "512Ki"),
            ("0", "0"),
            ("0Gi", "0"),
            ("010", "10"),
            ("1k", "1k"),
            ("1e3", "1e3"),
            ("nonsense", "nonsense"),
            ("", ""),
        ] {
            assert_eq!(canonical(&Quantity(text.into())).0, expected, "{text}");
        }
    }
}
