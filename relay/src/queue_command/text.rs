//! Messages as text for a terminal. What came from outside cannot control it: control characters are shown as escapes.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::admin::{AttemptView, Message, Page, Summary};

/// A list, one line a message.
pub(super) fn page(out: &mut impl Write, page: &Page) -> io::Result<()> {
    for message in &page.messages {
        let upstreams = message.upstreams.join(",");
        let first = message.first_recipient.as_deref().unwrap_or_default();
        let further = match message.queued {
            0 | 1 => String::new(),
            queued => format!(" and {} more", queued - 1),
        };
        writeln!(
            out,
            "{}  {:?}  {}  attempts {}  {}  <{}> -> <{}>{further}",
            message.id,
            message.state,
            age(message.age_seconds),
            message.attempts,
            if upstreams.is_empty() { "no route" } else { &upstreams },
            visible(&message.sender),
            visible(first),
        )?;
        if let Some(reply) = &message.last_reply {
            writeln!(out, "    {}", visible(reply))?;
        }
    }
    match page.next {
        Some(next) => writeln!(out, "more: --after {next}"),
        None => Ok(()),
    }
}

/// One message.
pub(super) fn message(out: &mut impl Write, message: &Message) -> io::Result<()> {
    let Summary { id, state, accepted_at, age_seconds, due_at, attempts, tenant, user, sender, size, .. } =
        &message.summary;
    writeln!(out, "id         {id}\nstate      {state:?}")?;
    writeln!(out, "accepted   {accepted_at} ({} ago)", age(*age_seconds))?;
    writeln!(out, "due        {due_at}\nattempts   {attempts}\nsize       {size}")?;
    writeln!(out, "tenant     {}", tenant.as_deref().map_or("none: written by the relay".into(), visible))?;
    if let Some(user) = user {
        writeln!(out, "user       {}", visible(user))?;
    }
    writeln!(out, "sender     <{}>", visible(sender))?;
    for recipient in &message.recipients {
        let upstream = recipient.upstream.as_deref().unwrap_or("no route");
        writeln!(out, "recipient  <{}> {:?} {upstream}", visible(&recipient.address), recipient.state)?;
    }
    for attempt in &message.history {
        let AttemptView { at, upstream, address, milliseconds, replies } = attempt;
        let address = address.as_deref().unwrap_or("no session");
        writeln!(out, "attempt    {at} {upstream} {address} {milliseconds} ms")?;
        for reply in replies {
            writeln!(out, "    <{}>: {}", visible(&reply.recipients.join(">, <")), visible(&reply.text))?;
        }
    }
    Ok(())
}

/// In the largest unit that is full, as `kubectl` shows ages.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn visible(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        if character.is_control() {
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
        shown
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_outside_cannot_control_the_terminal() {
        assert_eq!(visible("grün\u{1b}[2J\r\n\u{9b}"), "grün\\u{1b}[2J\\r\\n\\u{9b}");
    }

    #[test]
    fn an_age_is_told_in_a_unit_that_is_easy_to_compare() {
        let ages = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(age);
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
