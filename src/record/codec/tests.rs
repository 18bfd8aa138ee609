//! The bytes, pinned: written out by hand from docs/format.md, not by the encoder they check.

use proptest::prelude::*;

use super::*;

const PLACE: Position = Position { generation: 7, row: 9 };
const CLAIMED_AT: u64 = 1_577_836_800_000;
const DAY: u64 = 86_400_000;

const CLAIM: &str = "
    01 01 00
    000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7
    2a00000000000000 00e8665e6f010000 005c260500000000 c00f705e6f010000 03000000
    00 00 00 00 00 00 00 00 00 00 00
    d185cf61";

/// A resumed operation whose owner has left notes: every optional field of an owner's is there.
const NOTED: &str = "
    01 01 03
    000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7
    2c00000000000000 00e8665e6f010000 005c260500000000 8037795e6f010000 04000000
    01 02000000
    01 2b00000000000000
    01 06000000 05000000
    01 c00f705e6f010000
    01 00a0b3686f010000
    01 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff
    01 0600000000000000 6a6f622d3137
    01 0e00000000000000 636c617373696669636174696f6e
    01 0400000000000000 61636d65 0a00000000000000 7469636b65742d383432
    00 00
    2b824ca9";

const RELEASED: &str = "
    01 02 00
    000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7
    2b00000000000000 00e8665e6f010000 005c260500000000 0000000000000000 03000000
    00 01 2a00000000000000 01 07000000 08000000 01 e8eb665e6f010000 00 00 00 00 00
    01 0a00000000000000 6f7665726c6f61646564
    00
    43fbf689";

const COMPLETED: &str = "
    01 03 00
    000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7
    2b00000000000000 00e8665e6f010000 005c260500000000 0000000000000000 03000000
    00 01 2a00000000000000 01 07000000 08000000 01 e8eb665e6f010000 00 00 00 00 00
    01 0a00000000000000 746578742f706c61696e
    01 0400000000000000 7370616d
    8d989848";

const FAILED_WITH_REPLY: &str = "
    01 04 00
    000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7
    2b00000000000000 00e8665e6f010000 005c260500000000 0000000000000000 03000000
    00 01 2a00000000000000 01 07000000 08000000 01 e8eb665e6f010000 00 00 00 00 00
    01 0a00000000000000 746578742f706c61696e
    01 0200000000000000 6e6f
    4e06e0ed";

const ATTEMPTS_EXHAUSTED: &str = "
    01 05 00
    000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7
    2b00000000000000 00e8665e6f010000 005c260500000000 0000000000000000 03000000
    01 05000000 01 2a00000000000000 01 07000000 08000000 01 e8eb665e6f010000 00 00 00 00 00
    00 00
    a3f1ef6b";

const FORGOTTEN_EARLY: &str = "
    01 06 00
    000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7
    2b00000000000000 00e8665e6f010000 005c260500000000 0000000000000000 03000000
    00 00 01 07000000 08000000 01 e8eb665e6f010000 01 00448d636f010000 00 00 00 00
    00 00
    bd785207";

#[test]
fn a_claim_has_these_bytes() {
    assert_golden(CLAIM, &claim());
}

#[test]
fn a_resumed_operation_with_notes_has_these_bytes() {
    let record = Record {
        sequence: 44,
        fence: 43,
        prev: Some(Position { generation: 6, row: 5 }),
        attempt: 2,
        epoch: 4,
        changed_at: CLAIMED_AT + 600_000,
        window_from: WindowFrom::FirstClaim,
        retained_until: CLAIMED_AT + 2 * DAY,
        fingerprint: Some(Fingerprint(bytes_from(0xf0))),
        dispatched: true,
        checkpoint: Some(Bytes::from_static(b"job-17")),
        label: Some("classification".into()),
        names: Some(Box::new(Names {
            project: Bytes::from_static(b"acme"),
            key: Bytes::from_static(b"ticket-842"),
        })),
        state: State::InFlight { lease_until: CLAIMED_AT + 1_200_000 },
        ..claim()
    };
    assert_golden(NOTED, &record);
}

#[test]
fn a_released_operation_has_these_bytes() {
    assert_golden(RELEASED, &ended(State::Released { reason: "overloaded".into() }));
}

#[test]
fn a_completed_operation_has_these_bytes() {
    assert_golden(COMPLETED, &ended(State::Completed(payload(b"spam"))));
}

#[test]
fn a_failed_operation_has_these_bytes() {
    assert_golden(FAILED_WITH_REPLY, &ended(State::Failed(Failure::Reply(payload(b"no")))));
}

#[test]
fn an_operation_out_of_attempts_has_these_bytes() {
    let record = Record { attempt: 5, ..ended(State::Failed(Failure::AttemptsExhausted)) };
    assert_golden(ATTEMPTS_EXHAUSTED, &record);
}

#[test]
fn a_forgotten_operation_has_these_bytes() {
    let record = Record { fence: 43, retained_until: CLAIMED_AT + DAY, ..ended(State::Forgotten) };
    assert_golden(FORGOTTEN_EARLY, &record);
}

#[test]
fn a_plain_claim_takes_78_bytes() {
    assert_eq!(encoded(&claim(), PLACE).len(), 78);
}

#[test]
fn the_worked_example_in_the_format_page_is_the_golden_claim() {
    let page = include_str!("../../../docs/format.md");
    let (_, example) = page.split_once("### A worked example").expect("the page has an example");
    let lines = example.lines().skip_while(|line| *line != "```text").skip(1);
    let fields = lines.take_while(|line| *line != "```").filter_map(|line| line.split(' ').next());
    assert_eq!(fields.collect::<String>(), squeezed(CLAIM));
}

#[test]
fn a_row_goes_behind_what_the_buffer_holds() {
    let mut out = b"before".to_vec();
    encode(&claim(), PLACE, &mut out);
    assert_eq!(out.strip_prefix(b"before"), Some(&*encoded(&claim(), PLACE)));
}

#[test]
fn every_single_flipped_bit_is_noticed() {
    for golden in [CLAIM, NOTED, RELEASED, COMPLETED, FAILED_WITH_REPLY, FORGOTTEN_EARLY] {
        let row = bytes(golden);
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, PLACE), Err(CodecError::Checksum), "bit {bit} flipped");
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    let row = bytes(NOTED);
    for len in 0..row.len() {
        assert!(decode(&row[..len], PLACE).is_err(), "cut to {len} bytes");
    }
}

#[test]
fn a_newer_format_is_named() {
    let mut row = bytes(CLAIM);
    row[0] = FORMAT + 1;
    assert_eq!(decode(&summed_anew(row), PLACE), Err(CodecError::Format(FORMAT + 1)));
}

#[test]
fn unknown_states_and_flags_make_no_record() {
    for (at, value) in [(1, 0), (1, FORGOTTEN + 1), (1, u8::MAX), (2, 4), (2, 0x80)] {
        let mut row = bytes(CLAIM);
        row[at] = value;
        let read = decode(&summed_anew(row), PLACE);
        assert_eq!(read, Err(CodecError::Fields), "byte {at} is {value:#x}");
    }
}

#[test]
fn an_option_byte_other_than_0_and_1_makes_no_record() {
    let mut row = bytes(CLAIM);
    let first_option = 1 + 2 + 16 + 8 + 4 * 8 + 4;
    row[first_option] = 2;
    assert_eq!(decode(&summed_anew(row), PLACE), Err(CodecError::Fields));
}

#[test]
fn a_length_past_the_end_makes_no_record() {
    let mut row = bytes(COMPLETED);
    let body_length = row.len() - CHECKSUM_BYTES - b"spam".len() - 8;
    for length in [5, u64::from(u32::MAX), u64::MAX] {
        row[body_length..][..8].copy_from_slice(&length.to_le_bytes());
        let read = decode(&summed_anew(row.clone()), PLACE);
        assert_eq!(read, Err(CodecError::Fields), "a body said to be {length} bytes long");
    }
}

#[test]
fn bytes_left_over_make_no_record() {
    let mut row = bytes(CLAIM);
    row.insert(row.len() - CHECKSUM_BYTES, 0);
    assert_eq!(decode(&summed_anew(row), PLACE), Err(CodecError::Fields));
}

#[test]
fn text_that_is_not_utf_8_makes_no_record() {
    let mut row = bytes(RELEASED);
    let reason = row.len() - CHECKSUM_BYTES - 1 - b"overloaded".len();
    row[reason] = 0xff;
    assert_eq!(decode(&summed_anew(row), PLACE), Err(CodecError::Fields));
}

proptest! {
    #[test]
    fn every_record_reads_back_as_it_was(record in records(), place in positions()) {
        prop_assert_eq!(decode(&encoded(&record, place), place), Ok(record));
    }

    #[test]
    fn a_glance_sees_what_a_reader_sees(record in records(), place in positions()) {
        let seen = glance(&encoded(&record, place), place).unwrap();
        prop_assert_eq!(
            seen,
            Glance {
                operation: record.operation,
                sequence: record.sequence,
                prev: record.prev,
                epoch: record.epoch,
                changed_at: record.changed_at,
                retained_until: record.retained_until,
                is_unanswered: record.is_unanswered(),
            }
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed(record in records(), at: prop::sample::Index) {
        let mut row = encoded(&record, PLACE);
        let bit = at.index(row.len() * 8);
        row[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(decode(&row, PLACE), Err(CodecError::Checksum));
    }

    #[test]
    fn a_row_cut_short_is_noticed(record in records(), at: prop::sample::Index) {
        let row = encoded(&record, PLACE);
        prop_assert!(decode(&row[..at.index(row.len())], PLACE).is_err());
    }

    #[test]
    fn a_row_in_another_place_is_noticed(
        record in records(),
        place in positions(),
        other in positions(),
    ) {
        prop_assume!(place != other);
        prop_assert_eq!(decode(&encoded(&record, place), other), Err(CodecError::Checksum));
    }

    #[test]
    fn junk_is_never_a_record(junk in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&junk, PLACE).is_err());
    }

    /// Past the checksum, what the fields hold is still not trusted.
    #[test]
    fn junk_with_a_sound_checksum_never_panics(
        junk in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut row = vec![FORMAT];
        row.extend_from_slice(&junk);
        row.extend_from_slice(&checksum(PLACE, &row).to_le_bytes());
        if let Ok(record) = decode(&row, PLACE) {
            prop_assert_eq!(decode(&encoded(&record, PLACE), PLACE), Ok(record));
        }
    }

    /// As above, near enough to a record for each field to be reached.
    #[test]
    fn a_record_with_bytes_changed_and_a_sound_checksum_never_panics(
        record in records(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut row = encoded(&record, PLACE);
        for (at, value) in changes {
            let at = at.index(row.len());
            row[at] = value;
        }
        if let Ok(record) = decode(&summed_anew(row), PLACE) {
            prop_assert_eq!(decode(&encoded(&record, PLACE), PLACE), Ok(record));
        }
    }
}

#[track_caller]
fn assert_golden(golden: &str, record: &Record) {
    let written = encoded(record, PLACE);
    assert_eq!(hex(&written), squeezed(golden), "what is written has changed");
    assert_eq!(decode(&bytes(golden), PLACE).as_ref(), Ok(record), "what is read has changed");
}

fn claim() -> Record {
    Record {
        operation: OperationId(bytes_from(0)),
        project: ProjectId(bytes_from(0xa0)),
        sequence: 42,
        fence: 42,
        prev: None,
        attempt: 1,
        epoch: 3,
        claimed_at: CLAIMED_AT,
        changed_at: CLAIMED_AT,
        window: DAY,
        window_from: WindowFrom::LastChange,
        retained_until: CLAIMED_AT + DAY,
        fingerprint: None,
        dispatched: false,
        checkpoint: None,
        label: None,
        names: None,
        state: State::InFlight { lease_until: CLAIMED_AT + 600_000 },
    }
}

/// What becomes of the claim a second later, by the owner's own hand.
fn ended(state: State) -> Record {
    Record {
        sequence: 43,
        prev: Some(Position { generation: 7, row: 8 }),
        changed_at: CLAIMED_AT + 1_000,
        retained_until: CLAIMED_AT + 1_000 + DAY,
        state,
        ..claim()
    }
}

fn payload(body: &'static [u8]) -> Payload {
    Payload { content_tag: Some("text/plain".into()), body: Bytes::from_static(body) }
}

fn encoded(record: &Record, place: Position) -> Vec<u8> {
    let mut row = Vec::new();
    encode(record, place, &mut row);
    row
}

fn encode(record: &Record, place: Position, out: &mut Vec<u8>) {
    let mut draft = record.clone();
    draft.sequence = 0;
    if record.fence == record.sequence {
        draft.fence = 0;
    }
    Draft::of(&draft).stamp(record.sequence, place, out);
}

/// The row with the checksum that its bytes ask for.
fn summed_anew(mut row: Vec<u8>) -> Vec<u8> {
    let covered = row.len() - CHECKSUM_BYTES;
    let sum = checksum(PLACE, &row[..covered]);
    row[covered..].copy_from_slice(&sum.to_le_bytes());
    row
}

fn hex(row: &[u8]) -> String {
    use std::fmt::Write;
    row.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(golden: &str) -> Vec<u8> {
    let digits = squeezed(golden);
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_default())
        .collect()
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

fn positions() -> impl Strategy<Value = Position> {
    any::<(u32, u32)>().prop_map(|(generation, row)| Position { generation, row })
}

fn blobs() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn texts() -> impl Strategy<Value = Box<str>> {
    any::<String>().prop_map(String::into_boxed_str)
}

fn payloads() -> impl Strategy<Value = Payload> {
    (prop::option::of(texts()), blobs())
        .prop_map(|(content_tag, body)| Payload { content_tag, body })
}

fn states() -> impl Strategy<Value = State> {
    prop_oneof![
        any::<u64>().prop_map(|lease_until| State::InFlight { lease_until }),
        texts().prop_map(|reason| State::Released { reason }),
        payloads().prop_map(State::Completed),
        payloads().prop_map(|payload| State::Failed(Failure::Reply(payload))),
        Just(State::Failed(Failure::AttemptsExhausted)),
        Just(State::Forgotten),
    ]
}

prop_compose! {
    /// Any record, those included whose fields equal what their absence stands for.
    fn records()(
        (operation, project) in any::<([u8; 16], [u8; 8])>(),
        (sequence, claimed_at, window) in any::<(u64, u64, u64)>(),
        fence in prop::option::of(any::<u64>()),
        changed_at in prop::option::of(any::<u64>()),
        retained_until in prop::option::of(any::<u64>()),
        attempt in prop_oneof![Just(1), any::<u32>()],
        (epoch, dispatched, from_first_claim) in any::<(u32, bool, bool)>(),
        prev in prop::option::of(positions()),
        fingerprint in prop::option::of(any::<[u8; 16]>().prop_map(Fingerprint)),
        checkpoint in prop::option::of(blobs()),
        label in prop::option::of(texts()),
        names in prop::option::of(
            (blobs(), blobs()).prop_map(|(project, key)| Box::new(Names { project, key })),
        ),
        state in states(),
    ) -> Record {
        let mut record = Record {
            operation: OperationId(operation),
            project: ProjectId(project),
            sequence,
            // No owner has fence zero.
            fence: fence.map_or(sequence, |fence| fence.max(1)),
            prev,
            attempt,
            epoch,
            claimed_at,
            changed_at: changed_at.unwrap_or(claimed_at),
            window,
            window_from: if from_first_claim {
                WindowFrom::FirstClaim
            } else {
                WindowFrom::LastChange
            },
            retained_until: 0,
            fingerprint,
            dispatched,
            checkpoint,
            label,
            names,
            state,
        };
        record.retained_until = retained_until.unwrap_or_else(|| record.expires_at());
        record
    }
}

/// Bytes that count up.
fn bytes_from<const N: usize>(first: u8) -> [u8; N] {
    let mut bytes = [first; N];
    for (byte, step) in bytes.iter_mut().zip(0..) {
        *byte = byte.wrapping_add(step);
    }
    bytes
}
