//! Which port a relay binds for a listener. Leaf: pure, called by the validator, the build and local mode.

/// The relay's own port for probes and metrics.
pub const ADMIN_PORT: u16 = 9090;

/// The name of [`ADMIN_PORT`] in pods and Services.
pub const ADMIN_PORT_NAME: &str = "postroad-admin";

/// The relay's own port for mail from other relays of its pool, and for the operator's question what it still holds.
pub const HAND_OVER_PORT: u16 = 9091;

/// The name of [`HAND_OVER_PORT`] in pods and Services.
pub const HAND_OVER_PORT_NAME: &str = "postroad-relay";

/// Ports below it need a privilege that relays do not have.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// How far a privileged port is moved.
const SHIFT: u16 = 10_000;

/// The port a relay binds for a listener's Service port: the same, or 10000 higher when it is below 1024.
#[must_use]
pub const fn container_port(port: u16) -> u16 {
    if port < FIRST_UNPRIVILEGED { port + SHIFT } else { port }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_ports_move_and_others_stay() {
        assert_eq!([25, 465, 587, 1023].map(container_port), [10025, 10465, 10587, 11023]);
        assert_eq!([1024, 2525, 65535].map(container_port), [1024, 2525, 65535]);
    }
}
