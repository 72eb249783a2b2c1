//! [`Queue`]: slots of a table in an order of their own, chained by their numbers.

/// Ends a chain.
pub(super) const NONE: u32 = u32::MAX;

/// A slot's neighbours in one queue.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Links {
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Queue {
    oldest: u32,
    newest: u32,
}

impl Links {
    pub(super) const LOOSE: Self = Self { previous: NONE, next: NONE };
}

impl Queue {
    pub(super) const EMPTY: Self = Self { oldest: NONE, newest: NONE };

    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Puts the slot `at` behind all others. `links` says where a slot keeps its neighbours in this queue.
    pub(super) fn push<S>(&mut self, slots: &mut [S], at: u32, links: impl Fn(&mut S) -> &mut Links) {
        let previous = std::mem::replace(&mut self.newest, at);
        if previous == NONE {
            self.oldest = at;
        } else {
            links(&mut slots[previous as usize]).next = at;
        }
        *links(&mut slots[at as usize]) = Links { previous, next: NONE };
    }

    /// Takes the slot `at` out. INVARIANT: it is in this queue.
    pub(super) fn take<S>(&mut self, slots: &mut [S], at: u32, links: impl Fn(&mut S) -> &mut Links) {
        let Links { previous, next } = *links(&mut slots[at as usize]);
        if previous == NONE {
            self.oldest = next;
        } else {
            links(&mut slots[previous as usize]).next = next;
        }
        if next == NONE {
            self.newest = previous;
        } else {
            links(&mut slots[next as usize]).previous = previous;
        }
    }
}
