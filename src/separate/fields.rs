//! A message is a sequence of fields, each of which follows its length in two octets.

/// The most octets of a message.
pub const MOST: usize = 4096;

/// Returns a message with these fields, or `None` if it would be too long.
pub(crate) fn encode<'f>(fields: impl IntoIterator<Item = &'f [u8]>) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    for field in fields {
        message.extend(u16::try_from(field.len()).ok()?.to_be_bytes());
        message.extend(field);
    }
    (message.len() <= MOST).then_some(message)
}

/// Returns the fields of a message, or `None` if it is none.
pub(crate) fn decode(mut message: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while let Some((length, rest)) = message.split_first_chunk() {
        let (field, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        fields.push(field);
        message = rest;
    }
    message.is_empty().then_some(fields)
}

/// Returns the text that a field has, or `None` if it is none.
pub(crate) fn text(field: &[u8]) -> Option<String> {
    String::from_utf8(field.to_vec()).ok()
}
