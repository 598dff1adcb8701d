//! The encodings of commit messages. Git decodes them by iconv's names, of which the web's standard lacks many.

use encoding_rs::Encoding;
use oem_cp::code_table::DECODING_TABLE_CP_MAP;
use oem_cp::code_table_type::TableType;

/// An encoding that is known and is not UTF-8.
#[derive(Clone, Copy)]
pub(crate) enum Charset {
    Web(&'static Encoding),
    /// A code page of DOS.
    CodePage(&'static TableType),
}

/// iconv's names of encodings that the web's standard calls otherwise, without `-` and `_`.
const ALIASES: [(&str, &str); 11] = [
    ("cp932", "shift_jis"),
    ("cp936", "gbk"),
    ("ms936", "gbk"),
    ("cp949", "euc-kr"),
    ("uhc", "euc-kr"),
    ("cp950", "big5"),
    ("eucjp", "euc-jp"),
    ("euccn", "gbk"),
    ("euckr", "euc-kr"),
    ("koi8r", "koi8-r"),
    ("iso885916", "iso-8859-16"),
];

impl Charset {
    /// Returns the encoding that a commit names; `None` for UTF-8 and for what is unknown.
    pub(crate) fn for_label(label: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(label).ok()?.trim().to_ascii_lowercase();
        let short = name.replace(['-', '_', ' '], "");
        let alias = ALIASES.iter().find(|(alias, _)| *alias == short).map(|(_, standard)| *standard);
        // iconv takes "iso88591" and "latin-1" too.
        let mut names = alias.into_iter().chain([&*name, &*short]);
        if let Some(encoding) = names.find_map(|name| Encoding::for_label(name.as_bytes())) {
            return (encoding != encoding_rs::UTF_8).then_some(Charset::Web(encoding));
        }
        let digits = ["cp", "ibm", "dos"].iter().find_map(|start| short.strip_prefix(start))?;
        DECODING_TABLE_CP_MAP.get(&digits.parse().ok()?).map(Charset::CodePage)
    }

    /// Decodes text. What the encoding does not know becomes a replacement character.
    pub(crate) fn decode(self, bytes: &[u8]) -> String {
        match self {
            Charset::Web(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
            Charset::CodePage(table) => table.decode_string_lossy(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_iconv_are_known() {
        let cases: [(&str, &[u8], &str); 15] = [
            ("cp932", b"\x83\x76US12\x91\xce\x89\x9e", "プUS12対応"),
            ("SJIS", b"\x83\x76", "プ"),
            ("cp936", b"\xd6\xd0", "中"),
            ("cp949", b"\xc7\xd1", "한"),
            ("cp950", b"\xa4\xa4", "中"),
            ("eucJP", b"\xa5\xd7", "プ"),
            ("EUC-JP", b"\xa5\xd7", "プ"),
            ("latin-1", b"caf\xe9", "café"),
            ("ISO8859-1", b"caf\xe9", "café"),
            ("iso88591", b"caf\xe9", "café"),
            ("ISO8859-15", b"\xa4", "€"),
            ("ISO8859-16", b"\xa4", "€"),
            ("cp850", b"caf\x82", "café"),
            ("CP437", b"caf\x82", "café"),
            ("cp1252", b"caf\xe9", "café"),
        ];
        for (label, bytes, text) in cases {
            assert_eq!(
                Charset::for_label(label.as_bytes()).map(|known| known.decode(bytes)).as_deref(),
                Some(text),
                "{label}"
            );
        }
    }

    #[test]
    fn utf_8_and_unknown_names_need_no_decoding() {
        for label in ["UTF-8", "utf8", "none such", "", "cp99999", "\u{e9}"] {
            assert!(Charset::for_label(label.as_bytes()).is_none(), "{label}");
        }
    }
}
