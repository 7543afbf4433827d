//! The table that says what runs where. Pure.

use crate::local::plan::{RelayPlan, destinations};

/// One row per listener, and one per relay for its probes and metrics.
#[must_use]
pub fn table<'a>(relays: impl Iterator<Item = (String, &'a RelayPlan, u16)>) -> String {
    let mut rows = vec![["RELAY", "LISTENER", "ADDRESS", "MAIL GOES TO"].map(str::to_owned)];
    for (name, relay, admin) in relays {
        let routes = destinations(&relay.config);
        rows.extend(relay.listeners.iter().map(|(listener, address)| {
            let tls =
                relay.config.listeners.iter().find(|found| found.name == *listener).map(|found| found.tls);
            let tls = tls.map(|tls| format!("{listener}, TLS {tls:?}")).unwrap_or_default();
            [name.clone(), tls, address.to_string(), routes.clone()]
        }));
        rows.push([name, "metrics".to_owned(), format!("http://127.0.0.1:{admin}/metrics"), String::new()]);
    }
    if rows.len() == 1 { "no relay runs\n".to_owned() } else { align(&rows) }
}

fn align(rows: &[[String; 4]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 4] = std::array::from_fn(width);
    let line = |row: &[String; 4]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bb", "c", ""].map(str::to_owned), ["aaa", "b", "→", "d"].map(str::to_owned)];
        assert_eq!(align(&rows), "a    bb  c\naaa  b   →  d\n");
    }
}
