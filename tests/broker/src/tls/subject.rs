//! The subject of a certificate as text: what Kafka calls a client that proves itself with one.
//!
//! Kafka takes Java's `X500Principal.getName()`: RFC 2253, the last part first.

/// A DER element's tag and content.
type Element<'a> = (u8, &'a [u8]);

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
/// The version of a certificate, which is left out of old ones.
const VERSION: u8 = 0xa0;
/// PrintableString, UTF8String, IA5String, TeletexString: text of one byte a character or UTF-8.
const TEXTS: [u8; 4] = [0x13, 0x0c, 0x16, 0x14];

/// Attributes that RFC 2253 has a name for.
const KNOWN: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

/// The subject of a certificate in DER; `None` if this is no certificate.
pub(super) fn of(certificate: &[u8]) -> Option<String> {
    let mut outer = inside(next(&mut &*certificate)?, SEQUENCE)?;
    let mut fields = inside(next(&mut outer)?, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        next(&mut fields)?;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        next(&mut fields)?;
    }
    let mut names = inside(next(&mut fields)?, SEQUENCE)?;
    let mut parts = Vec::new();
    while !names.is_empty() {
        let mut set = inside(next(&mut names)?, SET)?;
        let mut together = Vec::new();
        while !set.is_empty() {
            let mut pair = inside(next(&mut set)?, SEQUENCE)?;
            let kind = inside(next(&mut pair)?, OID)?;
            together.push(attribute(kind, next(&mut pair)?));
        }
        parts.push(together.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn inside<'a>((tag, content): Element<'a>, wanted: u8) -> Option<&'a [u8]> {
    (tag == wanted).then_some(content)
}

/// Takes one element off the front.
fn next<'a>(from: &mut &'a [u8]) -> Option<Element<'a>> {
    let (&[tag, first], mut rest) = from.split_first_chunk()?;
    let len = match first {
        0..=0x7f => usize::from(first),
        // No certificate is longer than three bytes can say.
        0x81..=0x83 => {
            let (bytes, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = behind;
            bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(len)?;
    *from = behind;
    Some((tag, content))
}

fn attribute(kind: &[u8], (tag, value): Element<'_>) -> String {
    let name = KNOWN.into_iter().find(|(oid, _)| *oid == kind).map(|(_, name)| name);
    match name {
        Some(name) if TEXTS.contains(&tag) => {
            format!("{name}={}", escaped(&String::from_utf8_lossy(value)))
        }
        _ => {
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}=#{tag:02x}{:02x}{hex}", dotted(kind), value.len())
        }
    }
}

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::new();
    for (at, c) in value.chars().enumerate() {
        let edge = (at == 0 && matches!(c, '#' | ' ')) || (at == last && c == ' ');
        if edge || matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn dotted(oid: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number = 0_u64;
    for byte in oid {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.extend([first, number - 40 * first]);
            } else {
                numbers.push(number);
            }
            number = 0;
        }
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(parts: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_subject_reads_as_java_writes_it() {
        let one = certificate(&[(DnType::CommonName, "alice")]);
        assert_eq!(of(&one).unwrap(), "CN=alice");
        let many = certificate(&[
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "A, B + C"),
            (DnType::CommonName, " alice "),
        ]);
        assert_eq!(of(&many).unwrap(), "CN=\\ alice\\ ,O=A\\, B \\+ C,C=DE");
        // An e-mail address has no name there.
        let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        assert_eq!(
            of(&certificate(&[(email, "a@b")])).unwrap(),
            "1.2.840.113549.1.9.1=#0c03614062"
        );
    }

    #[test]
    fn damaged_certificates_are_nobody() {
        let good = certificate(&[(DnType::CommonName, "alice")]);
        for end in 0..good.len() {
            let _ = of(&good[..end]);
        }
        for at in 0..good.len() {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = of(&bad);
            }
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(&good[..40]), None);
    }
}
