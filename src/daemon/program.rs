//! Which program this is: the running file, told from every other build, and what it was told.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use tokio::sync::OnceCell;

use crate::model::About;

/// The file this process runs, also after it was replaced or removed (`man 5 proc`).
const RUNNING: &str = "/proc/self/exe";

const CHUNK: usize = 1024 * 1024;

/// Sixteen digits over a program's file: two builds differ, a copy does not. Not cryptographic;
/// nobody is kept out by it. Reads the whole file, about 100 MB without optimisation.
pub fn build_of(program: &Path) -> io::Result<String> {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut file = File::open(program)?;
    let mut chunk = vec![0; CHUNK];
    let (mut state, mut length) = (0_u64, 0_u64);
    loop {
        let read = fill(&mut file, &mut chunk)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        let mut words = chunk[..read].chunks_exact(8);
        for word in words.by_ref() {
            let word = word.try_into().map(u64::from_le_bytes).unwrap_or_default();
            state = (state ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
        }
        for byte in words.remainder() {
            state = (state ^ u64::from(*byte))
                .wrapping_mul(MULTIPLIER)
                .rotate_left(29);
        }
    }
    state = (state ^ length).wrapping_mul(MULTIPLIER);
    Ok(format!("{:016x}", state ^ (state >> 32)))
}

/// As much as fits, so that the chunks of one file are always the same.
fn fill(file: &mut File, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Of the running program.
pub fn own_build() -> io::Result<String> {
    build_of(Path::new(RUNNING))
}

/// Says who this supervisor is. Its build is computed when somebody asks for the first time.
pub(super) struct Herald {
    about: About,
    build: OnceCell<Option<String>>,
}

impl Herald {
    pub(super) fn new(about: About) -> Self {
        Self {
            about,
            build: OnceCell::new(),
        }
    }

    pub(super) async fn about(&self) -> About {
        let compute = || async {
            match tokio::task::spawn_blocking(own_build).await {
                Ok(Ok(build)) => Some(build),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the program's own file cannot be read");
                    None
                }
                Err(_) => None,
            }
        };
        About {
            build: self.build.get_or_init(compute).await.clone(),
            ..self.about.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_build_and_one_byte_more_is_another() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = root.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            build_of(&path).unwrap()
        };
        let program: Vec<u8> = (0..3_000_001_u32).map(|n| (n % 251) as u8).collect();
        let build = write("one", &program);
        assert_eq!(build, write("copy", &program));
        let mut longer = program.clone();
        longer.push(0);
        assert_ne!(build, write("longer", &longer));
        let mut changed = program;
        changed[1_234_567] ^= 1;
        assert_ne!(build, write("changed", &changed));
    }

    #[test]
    fn the_running_program_can_be_told() {
        let here = std::env::current_exe().unwrap();
        assert_eq!(own_build().unwrap(), build_of(&here).unwrap());
    }
}
