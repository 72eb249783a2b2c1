//! Reads an input as steps: a length byte pair, then as many bytes.

pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

/// One step's bytes. What is not there reads as zero, so that every input means something.
pub(crate) struct Step<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn steps(mut self) -> impl Iterator<Item = Step<'a>> {
        std::iter::from_fn(move || {
            let (len, rest) = self.rest.split_first_chunk::<2>()?;
            let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
            let (step, rest) = rest.split_at(len);
            self.rest = rest;
            Some(Step { rest: step })
        })
    }
}

impl<'a> Step<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (head, rest) = self.rest.split_at(N.min(self.rest.len()));
        array[..head.len()].copy_from_slice(head);
        self.rest = rest;
        array
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}
