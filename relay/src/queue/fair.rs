//! Whose turn it is: deficit round robin over tenants, in two classes. Pure.
//!
//! Every turn of a tenant is worth one unit (a recipient, where the cost of an item is known). A tenant whose item cost more is
//! passed over until it has paid the rest: surplus round robin, the form of deficit round robin that need not know a cost
//! before it serves. So however much one tenant has waiting, another's next item waits for at most one item of each.
//!
//! Used by [`Queue`](super::Queue) for what is due and by dispatch for what waits for one upstream.

use std::collections::{HashMap, VecDeque};

pub use postroad_crds::relay_config::Priority;

/// Of so many items, one is of the normal class though some of the high one wait, so that nobody is starved.
const NORMAL_EVERY: u32 = 10;

/// Names a tenant by a number, as long as it has messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenant(pub u32);

/// What decides when a message has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Whose it is.
    pub tenant: Tenant,
    /// How urgent it is.
    pub priority: Priority,
}

/// Something that may wait for its turn.
pub trait Cost {
    /// The turns that it takes; at least one is counted.
    fn cost(&self) -> u32;
}

/// Items that wait for their turn. Of one tenant and class, they come in the order in which they were pushed.
#[derive(Debug)]
pub struct Fair<T> {
    high: Round<T>,
    normal: Round<T>,
    /// Items of the high class given out since one of the normal class.
    high_in_a_row: u32,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self { high: Round::default(), normal: Round::default(), high_in_a_row: 0 }
    }
}

impl<T: Cost> Fair<T> {
    /// Adds an item behind those of its tenant.
    pub fn push(&mut self, rank: Rank, item: T) {
        self.round(rank.priority).enter(rank.tenant).waiting.push_back(item);
        self.round(rank.priority).waiting += 1;
    }

    /// Puts an item back that was taken and not used: it is the next of its class.
    pub fn push_front(&mut self, rank: Rank, item: T) {
        let round = self.round(rank.priority);
        let share = round.enter(rank.tenant);
        share.debt = share.debt.saturating_sub(item.cost().saturating_sub(1));
        share.waiting.push_front(item);
        round.waiting += 1;
        round.order.retain(|tenant| *tenant != rank.tenant);
        round.order.push_front(rank.tenant);
    }

    /// The item whose turn it is.
    pub fn front(&mut self) -> Option<&T> {
        self.turn().front()
    }

    /// Takes the item whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let is_high = self.is_high_next();
        let item = self.turn().pop()?;
        self.high_in_a_row = if is_high { self.high_in_a_row + 1 } else { 0 };
        Some(item)
    }

    /// Takes all items for which `wanted` holds, in no order.
    pub fn take(&mut self, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for round in [&mut self.high, &mut self.normal] {
            round.take(&wanted, &mut taken);
        }
        taken
    }

    /// All items, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.high, &self.normal]
            .into_iter()
            .flat_map(|round| round.shares.values())
            .flat_map(|share| &share.waiting)
    }

    /// Items that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.high.waiting + self.normal.waiting
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn round(&mut self, priority: Priority) -> &mut Round<T> {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
        }
    }

    fn is_high_next(&self) -> bool {
        self.normal.waiting == 0 || (self.high.waiting > 0 && self.high_in_a_row + 1 < NORMAL_EVERY)
    }

    fn turn(&mut self) -> &mut Round<T> {
        if self.is_high_next() { &mut self.high } else { &mut self.normal }
    }
}

/// The tenants of one class.
#[derive(Debug)]
struct Round<T> {
    shares: HashMap<Tenant, Share<T>>,
    /// The tenant whose turn it is comes first. Each that has a share is in it once.
    order: VecDeque<Tenant>,
    /// Items of all.
    waiting: usize,
}

#[derive(Debug)]
struct Share<T> {
    waiting: VecDeque<T>,
    /// Turns to be passed over.
    debt: u32,
}

impl<T> Default for Round<T> {
    fn default() -> Self {
        Self { shares: HashMap::new(), order: VecDeque::new(), waiting: 0 }
    }
}

impl<T: Cost> Round<T> {
    fn enter(&mut self, tenant: Tenant) -> &mut Share<T> {
        self.shares.entry(tenant).or_insert_with(|| {
            self.order.push_back(tenant);
            Share { waiting: VecDeque::new(), debt: 0 }
        })
    }

    /// Passes turns until the first tenant may be served. Who waits for nothing and owes nothing leaves.
    fn serve(&mut self) -> Option<&mut Share<T>> {
        if self.waiting == 0 {
            return None;
        }
        loop {
            let tenant = *self.order.front()?;
            let share = self.shares.get_mut(&tenant)?;
            match (share.debt, share.waiting.is_empty()) {
                (0, false) => break,
                (0, true) => {
                    self.shares.remove(&tenant);
                    self.order.pop_front();
                }
                _ => {
                    share.debt -= 1;
                    self.order.rotate_left(1);
                }
            }
        }
        self.order.front().and_then(|tenant| self.shares.get_mut(tenant))
    }

    fn front(&mut self) -> Option<&T> {
        self.serve()?.waiting.front()
    }

    fn pop(&mut self) -> Option<T> {
        let share = self.serve()?;
        let item = share.waiting.pop_front()?;
        share.debt = item.cost().saturating_sub(1);
        self.waiting -= 1;
        self.order.rotate_left(1);
        Some(item)
    }

    fn take(&mut self, wanted: impl Fn(&T) -> bool, taken: &mut Vec<T>) {
        for share in self.shares.values_mut() {
            let (mine, others): (Vec<T>, VecDeque<T>) =
                partition(std::mem::take(&mut share.waiting), &wanted);
            self.waiting -= mine.len();
            share.waiting = others;
            taken.extend(mine);
        }
    }
}

fn partition<T>(items: VecDeque<T>, wanted: impl Fn(&T) -> bool) -> (Vec<T>, VecDeque<T>) {
    let (mut chosen, mut others) = (Vec::new(), VecDeque::new());
    for item in items {
        if wanted(&item) { chosen.push(item) } else { others.push_back(item) }
    }
    (chosen, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(tenant: u32, priority: Priority) -> Rank {
        Rank { tenant: Tenant(tenant), priority }
    }

    /// Items cost one; the test about costs has others.
    impl Cost for u32 {
        fn cost(&self) -> u32 {
            1
        }
    }

    /// What costs what it says.
    struct Large(u32);

    impl Cost for Large {
        fn cost(&self) -> u32 {
            self.0
        }
    }

    const NORMAL: Priority = Priority::Normal;

    fn drain(fair: &mut Fair<u32>) -> Vec<u32> {
        std::iter::from_fn(|| fair.pop()).collect()
    }

    #[test]
    fn tenants_take_turns_and_each_ones_items_keep_their_order() {
        let mut fair = Fair::default();
        (0..4).for_each(|item| fair.push(rank(1, NORMAL), 10 + item));
        (0..2).for_each(|item| fair.push(rank(2, NORMAL), 20 + item));
        assert_eq!((fair.len(), fair.front()), (6, Some(&10)));
        assert_eq!(drain(&mut fair), [10, 20, 11, 21, 12, 13]);
        assert!(fair.is_empty() && fair.front().is_none());
    }

    #[test]
    fn a_tenant_with_a_million_items_delays_the_next_of_another_by_one() {
        let mut fair = Fair::default();
        (0..1_000_000).for_each(|item| fair.push(rank(1, NORMAL), item));
        (0..1_000).for_each(|item| assert_eq!(fair.pop(), Some(item)));
        fair.push(rank(2, NORMAL), 7_000_000);
        assert!(fair.pop() < Some(1_000_000));
        assert_eq!(fair.pop(), Some(7_000_000));
    }

    #[test]
    fn what_costs_more_than_a_turn_is_paid_with_the_next_ones_even_by_a_tenant_that_comes_and_goes() {
        let mut fair = Fair::default();
        let mut given = [0_u32; 3];
        for _ in 0..2_000 {
            fair.push(rank(1, NORMAL), Large(1));
            if fair.len() < 100 {
                fair.push(rank(2, NORMAL), Large(50));
            }
            match fair.pop() {
                Some(Large(1)) => given[1] += 1,
                _ => given[2] += 50,
            }
        }
        assert!(given[1].abs_diff(given[2]) <= 100, "{given:?}");
    }

    #[test]
    fn the_high_class_goes_first_and_leaves_a_tenth_to_the_normal_one() {
        let mut fair = Fair::default();
        (0..200).for_each(|item| fair.push(rank(1, NORMAL), item));
        (1_000..1_100).for_each(|item| fair.push(rank(1, Priority::High), item));
        let order = drain(&mut fair);
        assert_eq!(order.len(), 300);
        let high = order[..100].iter().filter(|item| **item >= 1_000).count();
        assert!((88..=91).contains(&high) && order[0] >= 1_000, "{high}");
    }

    #[test]
    fn what_is_put_back_is_the_next_and_has_cost_nothing() {
        let mut fair = Fair::default();
        (0..3).for_each(|item| fair.push(rank(1, NORMAL), item));
        fair.push(rank(2, NORMAL), 20);
        assert_eq!(fair.pop(), Some(0));
        fair.push_front(rank(1, NORMAL), 0);
        assert_eq!(drain(&mut fair), [0, 20, 1, 2]);
    }

    #[test]
    fn what_is_taken_out_of_turn_is_gone_and_the_rest_goes_on() {
        let mut fair = Fair::default();
        (0..6).for_each(|item| fair.push(rank(item % 2, NORMAL), item));
        let mut taken = fair.take(|item| item % 2 == 0 || *item == 5);
        taken.sort_unstable();
        assert_eq!(taken, [0, 2, 4, 5]);
        assert_eq!((fair.len(), drain(&mut fair)), (2, vec![1, 3]));
    }
}
