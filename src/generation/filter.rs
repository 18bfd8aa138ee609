//! Filters: which tags a shard of a sealed generation may have.
//!
//! A binary fuse filter (built by `xorf`) says so by the XOR of three cells of ten bits, whose
//! places come from the tag. Filters of one shape have the same places, so the low bytes of up to
//! sixteen generations stand side by side, a column each: a look at three places asks them all.
//! Apart, thirty generations are ninety places in a hundred megabytes, none of them in a cache, and
//! took a third of a claim. The other two bits of a cell are looked at where the low byte says yes.

use xorf::{BinaryFuse16, DmaSerializable};

/// Generations side by side.
const COLUMNS: usize = 16;

/// Cells from which on a filter is worth a column: a smaller one is in the processor's cache.
const LARGE_CELLS: usize = 4096;

const DESCRIPTOR_BYTES: usize = BinaryFuse16::DESCRIPTOR_LEN;

/// Cells whose two further bits share a byte.
const RESTS_PER_BYTE: usize = 4;

/// What decides about the places of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    seed: u64,
    segment_cells: u32,
    /// Cells in which the first of the three places can be.
    first_cells: u32,
}

/// The filter of one shard of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// The low byte of each cell.
    cells: Box<[u8]>,
    rest: Rest,
}

/// What is left of a filter when its low bytes stand side by side with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rest {
    shape: Shape,
    bits: Box<[u8]>,
}

/// Where a tag's cells are, and what their XOR is if it is there.
struct Probe {
    places: [usize; 3],
    fingerprint: u8,
    rest: u8,
}

impl Shape {
    fn cells(self) -> usize {
        self.first_cells as usize + 2 * self.segment_cells as usize
    }

    #[expect(clippy::cast_possible_truncation, reason = "parts of a hash are what is asked for")]
    fn probe(self, tag: u64) -> Probe {
        let hash = mix(tag.wrapping_add(self.seed));
        let mask = self.segment_cells - 1;
        // The high half of the product: an even share of the first cells for each hash.
        let first = ((u128::from(hash) * u128::from(self.first_cells)) >> 64) as u32;
        let second = (first + self.segment_cells) ^ ((hash >> 18) as u32 & mask);
        let third = (first + 2 * self.segment_cells) ^ (hash as u32 & mask);
        Probe {
            places: [first, second, third].map(|place| place as usize),
            fingerprint: (hash ^ (hash >> 32)) as u8,
            rest: ((hash ^ (hash >> 32)) >> 8) as u8 & 3,
        }
    }
}

impl Rest {
    /// Whether a tag that the low bytes let through may be there.
    pub(crate) fn may_have(&self, tag: u64) -> bool {
        let Probe { places, rest, .. } = self.shape.probe(tag);
        let bits = places.map(|place| {
            let byte = self.bits.get(place / RESTS_PER_BYTE).copied().unwrap_or_default();
            byte >> (place % RESTS_PER_BYTE * 2) & 3
        });
        bits[0] ^ bits[1] ^ bits[2] == rest
    }
}

impl Filter {
    /// Of tags sorted and without repeats. `padded_to` so many, so that filters of about as many
    /// tags have one shape. `None` where none could be built that lets each of them through.
    pub(crate) fn build(mut tags: Vec<u64>, padded_to: usize) -> Option<Self> {
        // Tags are of 32 bits, so that these are none.
        let paddings = u64::from(u32::MAX) + 1..;
        tags.extend(paddings.take(padded_to.saturating_sub(tags.len())));
        let built = BinaryFuse16::try_from(&tags).ok()?;
        let mut bytes = vec![0; DESCRIPTOR_BYTES];
        built.dma_copy_descriptor_to(&mut bytes);
        bytes.extend(built.fingerprints.iter().map(|cell| cell.to_le_bytes()[0]));
        bytes.extend(built.fingerprints.chunks(RESTS_PER_BYTE).map(|cells| {
            let rests = cells.iter().map(|cell| cell.to_le_bytes()[1] & 3);
            rests.rev().fold(0, |byte, rest| byte << 2 | rest)
        }));
        let filter = Filter::from_bytes(&bytes)?;
        // A tag held back would be a key that was never seen: better no filter than such a one.
        tags.iter().all(|tag| filter.may_have(*tag)).then_some(filter)
    }

    /// Whether it is to stand side by side with others.
    pub(crate) fn is_large(&self) -> bool {
        self.cells.len() >= LARGE_CELLS
    }

    pub(crate) fn may_have(&self, tag: u64) -> bool {
        let Probe { places, fingerprint, .. } = self.rest.shape.probe(tag);
        let [a, b, c] = places.map(|place| self.cells.get(place).copied().unwrap_or_default());
        a ^ b ^ c == fingerprint && self.rest.may_have(tag)
    }

    /// `seed: u64 │ cells of a segment: u32 │ that less one: u32 │ first cells: u32 │ low bytes │
    /// further bits, of four cells a byte`.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Shape { seed, segment_cells, first_cells } = self.rest.shape;
        let mut bytes = seed.to_le_bytes().to_vec();
        for number in [segment_cells, segment_cells - 1, first_cells] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.cells);
        bytes.extend_from_slice(&self.rest.bits);
        bytes
    }

    /// Nothing where the places of some tag would be out of bounds.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (seed, bytes) = bytes.split_first_chunk()?;
        let (lengths, bytes) = bytes.split_first_chunk::<12>()?;
        let ([segment, mask, first], []) = lengths.as_chunks::<4>() else { return None };
        let [segment_cells, mask, first_cells] =
            [segment, mask, first].map(|bytes| u32::from_le_bytes(*bytes));
        let is_sound = segment_cells.is_power_of_two()
            && mask == segment_cells - 1
            && first_cells.is_multiple_of(segment_cells)
            && first_cells < 1 << 30
            && segment_cells < 1 << 29;
        if !is_sound {
            return None;
        }
        let shape = Shape { seed: u64::from_le_bytes(*seed), segment_cells, first_cells };
        let (cells, bits) = bytes.split_at_checked(shape.cells())?;
        let is_whole = bits.len() == cells.len().div_ceil(RESTS_PER_BYTE);
        let rest = Rest { shape, bits: bits.into() };
        is_whole.then(|| Filter { cells: cells.into(), rest })
    }
}

/// Filters of one shape, side by side.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    shape: Shape,
    /// A power of two, up to [`COLUMNS`].
    width: usize,
    cells: Vec<u8>,
}

impl Columns {
    /// How many there are side by side at most. Fewer take less memory, down to one.
    pub(crate) const COUNT: usize = COLUMNS;

    /// No filters yet, but room for those of the shape of this one.
    pub(crate) fn like(filter: &Filter, width: usize) -> Self {
        let shape = filter.rest.shape;
        Columns { shape, width, cells: vec![0; shape.cells() * width] }
    }

    pub(crate) fn fits(&self, filter: &Filter) -> bool {
        self.shape == filter.rest.shape
    }

    /// Whether there is room at a column without making it.
    pub(crate) fn reach(&self, column: usize) -> bool {
        column < self.width
    }

    /// The same filters with room for as many more: a copy of up to 230 KB.
    pub(crate) fn widened(&self) -> Self {
        let mut cells = Vec::with_capacity(2 * self.cells.len());
        for row in self.cells.chunks_exact(self.width) {
            cells.extend_from_slice(row);
            cells.resize(cells.len() + self.width, 0);
        }
        Columns { shape: self.shape, width: 2 * self.width, cells }
    }

    /// Puts a filter that fits into a column, in place of what is there, and returns its rest.
    pub(crate) fn put(&mut self, column: usize, filter: Filter) -> Rest {
        while !self.reach(column) {
            *self = self.widened();
        }
        for (row, cell) in self.cells.chunks_exact_mut(self.width).zip(&filter.cells[..]) {
            if let Some(place) = row.get_mut(column) {
                *place = *cell;
            }
        }
        filter.rest
    }

    /// The columns that may have a tag, by the low bytes; a bit each.
    pub(crate) fn probe(&self, tag: u64) -> u16 {
        let Probe { places, fingerprint, .. } = self.shape.probe(tag);
        let [a, b, c] = places.map(|place| self.row(place));
        // Of fewer columns than sixteen, the rest of the row is no column.
        matching_bytes(a ^ b ^ c, fingerprint) & (u16::MAX >> (COLUMNS - self.width))
    }

    fn row(&self, place: usize) -> u128 {
        let row = self.cells.get(place * self.width..).unwrap_or_default();
        match row.first_chunk::<COLUMNS>() {
            Some(bytes) if self.width == COLUMNS => u128::from_le_bytes(*bytes),
            _ => {
                let columns = row.iter().take(self.width).rev();
                columns.fold(0, |row, byte| row << 8 | u128::from(*byte))
            }
        }
    }
}

/// The bytes of `row` that are `byte`, a bit each.
fn matching_bytes(row: u128, byte: u8) -> u16 {
    const ONES: u128 = u128::from_le_bytes([1; COLUMNS]);
    let differences = row ^ (ONES * u128::from(byte));
    // No byte is zero: which is so nearly always, and told at once.
    if differences.wrapping_sub(ONES) & !differences & (ONES << 7) == 0 {
        return 0;
    }
    let bytes = differences.to_le_bytes();
    bytes.iter().rev().fold(0, |bits, byte| bits << 1 | u16::from(*byte == 0))
}

/// The finalizer of `MurmurHash3`, 64 bits.
fn mix(mut hash: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scattered(from: u64, count: u64) -> Vec<u64> {
        let mut tags: Vec<_> =
            (from..from + count).map(|n| n.wrapping_mul(0x9e37_79b1) & 0xffff_ffff).collect();
        tags.sort_unstable();
        tags
    }

    #[test]
    fn this_code_and_the_builder_mean_the_same_places() {
        use xorf::Filter as _;
        let tags = scattered(0, 10_000);
        let theirs = BinaryFuse16::try_from(&tags).unwrap();
        let ours = Filter::build(tags, 0).unwrap();
        // Theirs has six bits more, and never says yes where ours says no.
        let through: Vec<_> =
            scattered(0, 200_000).into_iter().filter(|tag| ours.may_have(*tag)).collect();
        assert!(
            scattered(0, 200_000).iter().all(|tag| !theirs.contains(tag) || ours.may_have(*tag))
        );
        assert!((10_100..10_300).contains(&through.len()), "{}", through.len());
    }

    #[test]
    fn filters_that_are_padded_to_one_size_have_one_shape() {
        let shapes = (0..50).map(|n| {
            let tags = scattered(n * 20_000, 12_000 + n * 16);
            Filter::build(tags, 12_800).unwrap().rest.shape
        });
        let shapes: Vec<_> = shapes.collect();
        let alike = shapes.iter().filter(|shape| **shape == shapes[0]).count();
        // One in a hundred takes another seed.
        assert!(alike >= 40, "{alike} of 50");
    }

    #[test]
    fn few_tags_that_are_not_there_are_let_through() {
        let filter = Filter::build(scattered(0, 12_400), 12_800).unwrap();
        let through =
            scattered(20_000, 100_000).iter().filter(|tag| filter.may_have(**tag)).count();
        assert!((50..150).contains(&through), "{through} of 100,000");
        let bytes = filter.to_bytes().len();
        assert!(bytes < 12_400 * 5 / 3, "{bytes} bytes");
    }

    proptest! {
        #[test]
        fn a_tag_that_is_there_is_never_held_back(
            tags in prop::collection::btree_set(any::<u32>(), 1..2000),
            padded_to in 0usize..3000,
        ) {
            let tags: Vec<u64> = tags.into_iter().map(u64::from).collect();
            let filter = Filter::build(tags.clone(), padded_to).unwrap();
            let read = Filter::from_bytes(&filter.to_bytes());
            prop_assert_eq!(read.as_ref(), Some(&filter));
            prop_assert!(tags.iter().all(|tag| filter.may_have(*tag)));
        }

        #[test]
        fn columns_say_what_their_filters_say(
            order in Just((0..COLUMNS).collect::<Vec<_>>()).prop_shuffle(),
            count in 1..=COLUMNS,
        ) {
            let shape = Filter::build(scattered(0, 500), 600).unwrap().rest.shape;
            let filters: Vec<_> = (0u64..)
                .map(|n| Filter::build(scattered(n * 1000, 500), 600).unwrap())
                .filter(|filter| filter.rest.shape == shape)
                .take(COLUMNS)
                .collect();
            let mut columns = Columns::like(&filters[0], 1);
            let mut rests: Vec<Option<Rest>> = vec![None; COLUMNS];
            let used = &order[..count];
            for column in used {
                prop_assert!(columns.fits(&filters[*column]));
                rests[*column] = Some(columns.put(*column, filters[*column].clone()));
            }
            for tag in scattered(0, 9_000) {
                let said = columns.probe(tag);
                for column in used {
                    let rest = rests[*column].as_ref().unwrap();
                    let bit = said >> column & 1 == 1;
                    prop_assert_eq!(bit && rest.may_have(tag), filters[*column].may_have(tag));
                }
            }
        }

        #[test]
        fn bytes_that_are_no_filter_do_no_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            tag: u64,
        ) {
            if let Some(filter) = Filter::from_bytes(&bytes) {
                let _ = filter.may_have(tag);
            }
        }

        #[test]
        fn matching_bytes_are_found(row: u128, byte: u8) {
            let bits = row.to_le_bytes().map(|found| found == byte);
            let expected = (0..COLUMNS).fold(0, |mask, at| mask | u16::from(bits[at]) << at);
            prop_assert_eq!(matching_bytes(row, byte), expected);
        }
    }
}
