//! Amounts of octets written as a Kubernetes Quantity: a whole number with an optional binary or decimal suffix.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A Quantity that is not a whole number of octets with one of the suffixes Ki Mi Gi Ti Pi Ei k M G T P E.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a whole number of octets such as 26214400, 25Mi or 1Gi")]
pub struct InvalidQuantity(pub String);

/// The octets that a Quantity stands for.
///
/// # Errors
/// When it has a fraction, an exponent, a sign or an unknown suffix, or exceeds 64 bits.
pub fn octets(quantity: &Quantity) -> Result<u64, InvalidQuantity> {
    let invalid = || InvalidQuantity(quantity.0.clone());
    let digits = quantity.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.0.len());
    let (number, suffix) = quantity.0.split_at(digits);
    let (base, power): (u64, u32) = match suffix {
        "" => (1, 0),
        "k" => (1000, 1),
        "M" => (1000, 2),
        "G" => (1000, 3),
        "T" => (1000, 4),
        "P" => (1000, 5),
        "E" => (1000, 6),
        "Ki" => (1024, 1),
        "Mi" => (1024, 2),
        "Gi" => (1024, 3),
        "Ti" => (1024, 4),
        "Pi" => (1024, 5),
        "Ei" => (1024, 6),
        _ => return Err(invalid()),
    };
    let number: u64 = number.parse().map_err(|_| invalid())?;
    number.checked_mul(base.pow(power)).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(octets(&Quantity(text.into())).ok(), expected, "{text}");
    }

    #[test]
    fn whole_amounts_are_read_and_anything_else_is_refused() {
        check("0", Some(0));
        check("26214400", Some(26_214_400));
        check("25Mi", Some(25 << 20));
        check("10Gi", Some(10 << 30));
        check("10G", Some(10_000_000_000));
        for refused in ["", "Mi", "1.5Gi", "-1", "1e3", "100m", "16Ei", "1KB"] {
            check(refused, None);
        }
    }
}
