// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Streams of every released format version still load, and say what they said then.

use migration::stream::{Handler, Known, Phase, Reader, Refusal, SectionHeader, SetupRecord};

const FORMAT_1_0: &[u8] = include_bytes!("data/format-1.0.stream");

/// What was read, a line for each record.
#[derive(Default)]
struct Lines(Vec<String>);

impl Handler for Lines {
    fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal> {
        let params: Vec<_> = record.params().map(|param| param.to_string()).collect();
        let (version, phase, model) = (record.version, record.phase, record.model);
        let params = params.join(" ");
        self.0.push(format!("{version} {phase} {model} {params}"));
        Ok(())
    }

    fn section_header(&mut self, header: &SectionHeader) -> Result<Known, Refusal> {
        match header.id {
            0x0100 | 0x0101 => Ok(Known::Yes),
            _ => Ok(Known::No),
        }
    }

    fn section(&mut self, header: &SectionHeader, payload: &[u8]) -> Result<(), Refusal> {
        let text = String::from_utf8_lossy(payload);
        let SectionHeader { phase, id, .. } = header;
        self.0.push(format!("{phase} {id:#06x} '{text}'"));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        self.0.push("end".into());
        Ok(())
    }
}

#[test]
fn a_stream_of_format_1_0_still_loads() {
    let mut lines = Lines::default();
    let mut reader = Reader::new();
    let mut scratch = [0; 4096];
    reader.push(FORMAT_1_0, &mut scratch, &mut lines).unwrap();
    assert!(reader.is_complete());
    assert_eq!(reader.phase(), Some(Phase::StopCopy));
    assert_eq!(
        lines.0,
        [
            "1.0 pre-copy example.org/pci/card num-ports=4 msi=on label=größe",
            "pre-copy 0x0100 'read ahead'",
            "1.0 stop-and-copy example.org/pci/card num-ports=4 msi=on label=größe",
            "stop-and-copy 0x0100 'the rest'",
            "stop-and-copy 0x0101 ''",
            "end",
        ]
    );
}
