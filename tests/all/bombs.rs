//! Modules that cost as much as they may, and more: what `bad_input` and `hostile` throw at the preflight and the compiler.

/// Appends an unsigned LEB128 number.
fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

fn sized(bytes: &mut Vec<u8>, content: &[u8]) {
    number(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

/// Items of a section, with their count before them.
fn items(count: usize, item: impl Fn(&mut Vec<u8>, usize)) -> Vec<u8> {
    let mut bytes = Vec::new();
    number(&mut bytes, count as u64);
    (0..count).for_each(|index| item(&mut bytes, index));
    bytes
}

pub(crate) const I32: u8 = 0x7f;
pub(crate) const V128: u8 = 0x7b;
const END: u8 = 0x0b;

/// A module in the making: `_start` is its function 0, of type 0, `() -> ()`.
pub(crate) struct Bomb {
    types: Vec<(Vec<u8>, Vec<u8>)>,
    /// Type and body, locals first, without its last `end`.
    functions: Vec<(u32, Vec<u8>)>,
    exports: usize,
    sections: Vec<(u8, Vec<u8>)>,
    memory_pages: u64,
}

impl Bomb {
    pub(crate) fn new() -> Self {
        Self {
            types: vec![(Vec::new(), Vec::new())],
            functions: vec![(0, vec![0])],
            exports: 0,
            sections: Vec::new(),
            memory_pages: 1,
        }
    }

    /// `count` functions of one body; `locals` of type V128 each.
    pub(crate) fn functions(mut self, count: usize, locals: u64, body: &[u8]) -> Self {
        let mut bytes = Vec::new();
        if locals == 0 {
            bytes.push(0);
        } else {
            bytes.push(1);
            number(&mut bytes, locals);
            bytes.push(V128);
        }
        bytes.extend_from_slice(body);
        self.functions.extend(std::iter::repeat_n((0, bytes), count));
        self
    }

    /// `count` functions, each exported, each of a type of its own with so many parameters.
    pub(crate) fn signatures(mut self, count: usize, params: usize) -> Self {
        for index in 0..count {
            let mut own = vec![I32; params];
            (0..14).filter(|bit| index >> bit & 1 == 1).for_each(|bit| own[bit] = 0x7e);
            self.types.push((own, Vec::new()));
            self.functions.push((u32::try_from(index + 1).unwrap(), vec![0]));
        }
        self.exports = count;
        self
    }

    /// So many functions are exported.
    pub(crate) fn exports(mut self, count: usize) -> Self {
        self.exports = count;
        self
    }

    /// A section of so many items.
    pub(crate) fn section(mut self, id: u8, count: usize, item: &[u8]) -> Self {
        self.sections.push((id, items(count, |bytes, _| bytes.extend_from_slice(item))));
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut sections = self.sections.clone();
        let types = items(self.types.len(), |bytes, index| {
            bytes.push(0x60);
            sized(bytes, &self.types[index].0);
            sized(bytes, &self.types[index].1);
        });
        sections.push((1, types));
        sections.push((3, items(self.functions.len(), |bytes, index| number(bytes, self.functions[index].0.into()))));
        let mut memory = vec![1, 0];
        number(&mut memory, self.memory_pages);
        sections.push((5, memory));
        let exports = items(self.exports + 2, |bytes, index| match index {
            0 => {
                sized(bytes, b"memory");
                bytes.extend([2, 0]);
            }
            1 => {
                sized(bytes, b"_start");
                bytes.extend([0, 0]);
            }
            index => {
                sized(bytes, format!("f{index}").as_bytes());
                bytes.push(0);
                number(bytes, (index - 1) as u64 % self.functions.len() as u64);
            }
        });
        sections.push((7, exports));
        let code = items(self.functions.len(), |bytes, index| {
            let body = &self.functions[index].1;
            number(bytes, body.len() as u64 + 1);
            bytes.extend_from_slice(body);
            bytes.push(END);
        });
        sections.push((10, code));
        sections.sort_by_key(|(id, _)| *id);
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        for (id, content) in sections {
            module.push(id);
            sized(&mut module, &content);
        }
        module
    }
}

/// A body of so many blocks, one in the other, each left by a condition.
pub(crate) fn nested(depth: usize) -> Vec<u8> {
    let mut body = Vec::new();
    (0..depth).for_each(|_| body.extend([0x02, 0x40]));
    (0..depth).for_each(|_| body.extend([0x41, 0, 0x0d, 0, END]));
    body
}

/// A body of so many loads, additions and stores, each on what the one before left.
pub(crate) fn chain(length: usize) -> Vec<u8> {
    let mut body = vec![0x41, 0];
    (0..length).for_each(|_| body.extend([0x28, 2, 0, 0x41, 1, 0x6a]));
    body.push(0x1a);
    body
}

/// A body that keeps so many values alive over a call.
pub(crate) fn alive(values: usize) -> Vec<u8> {
    let mut body = Vec::new();
    (0..values).for_each(|_| body.extend([0x41, 0, 0x28, 2, 0]));
    body.extend([0x10, 0]);
    (0..values).for_each(|_| body.push(0x1a));
    body
}

/// A constant expression of so many additions.
pub(crate) fn sum(additions: usize) -> Vec<u8> {
    let mut text = vec![0x41, 0];
    (0..additions).for_each(|_| text.extend([0x41, 1, 0x6a]));
    text.push(END);
    text
}

/// A body of so many blocks, one after the other, each left by a condition.
pub(crate) fn blocks(count: usize) -> Vec<u8> {
    [0x02, 0x40, 0x41, 0, 0x0d, 0, END].repeat(count)
}

/// A body of so many loops, one in the other, that changes `locals` locals in the innermost.
pub(crate) fn loops(depth: usize, locals: u64) -> Vec<u8> {
    let mut body = [0x03, 0x40].repeat(depth);
    for local in 0..locals {
        body.push(0x20);
        number(&mut body, local);
        body.push(0x21);
        number(&mut body, (local + 1) % locals);
    }
    (0..depth).for_each(|_| body.extend([0x41, 0, 0x0d, 0, END]));
    body
}
