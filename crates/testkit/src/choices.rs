//! Repeatable choices: the cuts of input, and the order of turns.

/// A small generator of numbers (SplitMix64): the same seed gives the same run on every machine.
#[derive(Debug, Clone)]
pub struct Choices(u64);

impl Choices {
    /// The choices of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`. 0: `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        match bound {
            0 => 0,
            _ => usize::try_from(self.next_number() % bound as u64).unwrap_or_default(),
        }
    }

    /// `true` or `false`, each half of the time.
    pub fn coin(&mut self) -> bool {
        self.next_number() & 1 == 1
    }
}

/// How a stream is cut into the pieces that arrive.
#[derive(Debug, Clone)]
pub enum Chunking {
    /// No cut.
    Whole,
    /// At every octet.
    Single,
    /// Once, at that octet of the whole stream.
    At(usize),
    /// Anywhere: mostly into pieces of few octets, sometimes of many.
    Random(Choices),
}

impl Chunking {
    /// The number of `available` octets that arrive next, after `position` octets of the stream: at
    /// least one.
    pub fn next(&mut self, position: usize, available: usize) -> usize {
        match self {
            Self::Whole => available,
            Self::Single => available.min(1),
            Self::At(cut) if position < *cut => (*cut - position).min(available),
            Self::At(_) => available,
            Self::Random(choices) => match choices.below(4) {
                0 => available,
                1 => (1 + choices.below(64)).min(available),
                _ => (1 + choices.below(6)).min(available),
            },
        }
    }

    /// All chunkings for a stream of that length: whole, in single octets, and one cut at each
    /// octet.
    pub fn all(octets: usize) -> impl Iterator<Item = Self> {
        [Self::Whole, Self::Single].into_iter().chain((1..octets).map(Self::At))
    }
}
