#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// A header with one question and so many answers and further records.
fn header(flags: u16, answers: u16, others: u16) -> Vec<u8> {
    [0x1234, flags, 1, answers, 0, others].map(u16::to_be_bytes).concat()
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn question(text: &str, query_type: u16) -> Vec<u8> {
    [&name(text)[..], &query_type.to_be_bytes(), &1_u16.to_be_bytes()].concat()
}

/// A record whose name is that of the question.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&[0xc0, 12][..], &kind.to_be_bytes(), &1_u16.to_be_bytes(), &60_u32.to_be_bytes(), &length, data].concat()
}

fn response(query_type: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap();
    [header(0x8180, count, 0), question("www.example.com", query_type), records.concat()].concat()
}

fn answers(message: &[u8]) -> Vec<String> {
    let message = DnsMessage::parse(message).unwrap();
    message.answers.iter().map(|answer| String::from_utf8_lossy(answer.as_bytes()).into_owned()).collect()
}

#[test]
fn a_query_is_read() {
    let query = [header(0x0100, 0, 0), question("www.example.com", AAAA)].concat();
    let read = DnsMessage::parse(&query).unwrap();
    assert_eq!((read.transaction_id, read.is_response, read.query_type), (0x1234, false, AAAA));
    assert_eq!(read.name, ByteString::from("www.example.com"));
    assert!(read.answers.is_empty() && !read.answers_truncated);
    for length in 0..query.len() {
        assert_eq!(DnsMessage::parse(&query[..length]), None, "{length}");
    }
    let root = [header(0x0100, 0, 0), question("", NS)].concat();
    assert_eq!(DnsMessage::parse(&root).unwrap().name, ByteString::default());
}

#[test]
fn answers_of_each_type_are_text() {
    let mail = [&10_u16.to_be_bytes()[..], &name("mail.example.com")].concat();
    // `mail` and a pointer to `example.com` in the question.
    let compressed = [&[4][..], b"mail", &[0xc0, 16]].concat();
    let service = [[1_u16, 2, 443].map(u16::to_be_bytes).concat(), name("s.example.com")].concat();
    let records = [
        record(A, &[192, 0, 2, 1]),
        record(AAAA, &Ipv6Addr::LOCALHOST.octets()),
        record(CNAME, &compressed),
        record(MX, &mail),
        record(SRV, &service),
        record(TXT, b"\x03v=1\x02 \xff"),
        record(65, &[1, 0xab]),
    ];
    let read = answers(&response(A, &records));
    let expected =
        ["192.0.2.1", "::1", "mail.example.com", "10 mail.example.com", "1 2 443 s.example.com", "v=1 \u{fffd}"];
    assert_eq!(read[..6], expected);
    assert_eq!(read[6], "\\# 2 01ab");
}

#[test]
fn data_that_is_not_of_its_type_is_shown_as_it_is() {
    let records = [record(A, &[1, 2, 3]), record(CNAME, &[0xc0, 0xff]), record(TXT, &[9, 1]), record(MX, &[1])];
    assert_eq!(answers(&response(A, &records)), ["\\# 3 010203", "\\# 2 c0ff", "\\# 2 0901", "\\# 1 01"]);
}

#[test]
fn a_response_says_how_it_went() {
    let read = DnsMessage::parse(&[header(0x8183, 0, 0), question("no.example.com", A)].concat()).unwrap();
    assert_eq!((read.is_response, read.response_code), (true, 3));
    // BADVERS: sixteen, of which the upper bits are in the OPT record.
    let option = [&[0][..], &OPT.to_be_bytes(), &1232_u16.to_be_bytes(), &[1, 0, 0, 0], &[0, 0]].concat();
    let read = DnsMessage::parse(&[header(0x8180, 0, 1), question("a.example.com", A), option].concat()).unwrap();
    assert_eq!(read.response_code, 16);
}

#[test]
fn too_many_answers_and_those_cut_off_are_told() {
    let many: Vec<_> = (0..=u8::try_from(DNS_ANSWERS_MAX).unwrap()).map(|last| record(A, &[10, 0, 0, last])).collect();
    let whole = response(A, &many);
    let read = DnsMessage::parse(&whole).unwrap();
    assert_eq!((read.answers.len(), read.answers_truncated), (DNS_ANSWERS_MAX, true));
    let two = response(A, &many[..2]);
    let read = DnsMessage::parse(&two[..two.len() - 1]).unwrap();
    assert_eq!((read.answers.len(), read.answers_truncated), (1, true));
    let said = [header(0x8380, 0, 0), question("a.example.com", A)].concat();
    assert!(DnsMessage::parse(&said).unwrap().answers_truncated);
}

#[test]
fn what_is_no_query_is_refused() {
    let update = [header(0x2800, 0, 0), question("a.example.com", A)].concat();
    assert_eq!(DnsMessage::parse(&update), None);
    let two_questions = [[1_u16, 0, 2, 0, 0, 0].map(u16::to_be_bytes).concat(), question("a", A)].concat();
    assert_eq!(DnsMessage::parse(&two_questions), None);
}

#[test]
fn pointers_that_lead_in_circles_are_refused() {
    let circle = |labels: &[u8]| [header(0x0100, 0, 0), labels.to_vec(), vec![0, 1, 0, 1]].concat();
    // To itself, to a label before itself, forwards.
    for labels in [&[0xc0, 12][..], &[1, b'a', 0xc0, 12], &[0xc0, 14, 0xc0, 12], &[0xc0, 20]] {
        assert_eq!(DnsMessage::parse(&circle(labels)), None, "{labels:?}");
    }
    // A pointer back into the header is no circle, and no name either.
    assert_eq!(DnsMessage::parse(&circle(&[0xc0, 0])), None);
    for reserved in [0x40, 0x80] {
        assert_eq!(DnsMessage::parse(&circle(&[reserved, 0])), None);
    }
}

#[test]
fn names_are_no_longer_than_they_may_be() {
    let of_labels = |count: usize, last: usize| {
        let mut bytes = [&[63][..], &[b'x'; 63]].concat().repeat(count);
        bytes.push(u8::try_from(last).unwrap());
        bytes.extend(vec![b'y'; last]);
        bytes.push(0);
        [header(0x0100, 0, 0), bytes, vec![0, 1, 0, 1]].concat()
    };
    assert_eq!(DnsMessage::parse(&of_labels(3, 61)).unwrap().name.len(), 253);
    assert_eq!(DnsMessage::parse(&of_labels(3, 62)), None);
}

proptest! {
    #[test]
    fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = DnsMessage::parse(&bytes);
    }

    /// Most random bytes fail at the first look: here the header is a response with many records.
    #[test]
    fn no_records_hurt(records in proptest::collection::vec(any::<u8>(), 0..600), answers in any::<u16>(), others in any::<u16>()) {
        let message = [header(0x8180, answers, others), question("a.b", A), records].concat();
        let read = DnsMessage::parse(&message).unwrap();
        prop_assert!(read.answers.len() <= DNS_ANSWERS_MAX);
    }

    /// Bytes that are mostly labels and pointers.
    #[test]
    fn no_names_hurt(parts in proptest::collection::vec(prop_oneof![Just(0_u8), Just(0xc0), 1_u8..64, 12_u8..80], 0..400)) {
        let message = [header(0x8180, 9, 9), parts].concat();
        if let Some(read) = DnsMessage::parse(&message) {
            prop_assert!(read.name.len() <= NAME_BYTES_MAX);
        }
    }

    #[test]
    fn a_changed_bit_is_no_harm(at in 0_usize..200, bit in 0_u8..8) {
        let mut message = response(A, &[record(A, &[1, 2, 3, 4]), record(CNAME, &name("b.c")), record(TXT, b"\x02hi")]);
        let at = at % message.len();
        message[at] ^= 1 << bit;
        let _ = DnsMessage::parse(&message);
    }
}
