//! Text from JavaScript. Taken as UTF-16 and narrowed here: V8 knows how long it is so, where as UTF-8 it counts first, twice, and
//! both times looks at every character.

/// Characters looked at together.
const CHUNK: usize = 1024;

/// The same as UTF-8. What has no form there, halves of a pair on their own, becomes U+FFFD, as V8 has it.
pub fn utf8(text: &[u16]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(CHUNK);
        // Both halves of a pair go together.
        while end < rest.len() && (0xd800..0xdc00).contains(&rest[end - 1]) {
            end += 1;
        }
        let (chunk, behind) = rest.split_at(end);
        if chunk.iter().fold(0, |all, unit| all | unit) < 0x80 {
            #[allow(clippy::cast_possible_truncation)] // below 0x80
            out.extend(chunk.iter().map(|unit| *unit as u8));
        } else {
            let mut bytes = [0; 4];
            for character in char::decode_utf16(chunk.iter().copied()) {
                out.extend_from_slice(character.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut bytes).as_bytes());
            }
        }
        rest = behind;
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_same_text(text in "(\\PC|[a-z]{400,900}){0,8}") {
            prop_assert_eq!(utf8(&text.encode_utf16().collect::<Vec<_>>()), text);
        }
    }

    #[test]
    fn pairs_are_kept_and_halves_replaced() {
        for before in CHUNK - 3..CHUNK + 3 {
            let text = "x".repeat(before) + "\u{1f600}\u{1f600}ü";
            assert_eq!(utf8(&text.encode_utf16().collect::<Vec<_>>()), text);
        }
        let lone = [vec![0x78; CHUNK - 1], vec![0xd800, 0xd83d, 0xde00]].concat();
        assert_eq!(utf8(&lone), "x".repeat(CHUNK - 1) + "\u{fffd}\u{1f600}");
        assert_eq!(utf8(&[0x61, 0xd800, 0x62, 0xdc00]), "a\u{fffd}b\u{fffd}");
    }
}
