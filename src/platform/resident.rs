//! What of the program itself is in memory.

use rustix::mm::Advice;

/// Gives back the program's code and constants, much of which only the start needs. What is used again comes back from
/// the file, which the kernel has cached, a few pages at a time.
pub fn give_back() {
    #[expect(unsafe_code, reason = "dl_iterate_phdr(3)")]
    // SAFETY: `segments` has the signature that is asked for, and needs no data.
    unsafe {
        libc::dl_iterate_phdr(Some(segments), std::ptr::null_mut());
    }
}

/// Called for the program first, and not again.
#[expect(unsafe_code, reason = "madvise(2) of what is mapped from the program's file")]
unsafe extern "C" fn segments(
    program: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the caller gives a valid description of a loaded program.
    let (base, headers) = unsafe {
        let program = &*program;
        (program.dlpi_addr, std::slice::from_raw_parts(program.dlpi_phdr, program.dlpi_phnum.into()))
    };
    let page = rustix::param::page_size() as u64;
    for header in
        headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
    {
        let start = (base + header.p_vaddr) / page * page;
        let length = (base + header.p_vaddr + header.p_memsz).next_multiple_of(page) - start;
        let start = std::ptr::with_exposed_provenance_mut(start as usize);
        // SAFETY: these pages cannot be written, so each is as the file has it, and is read from there again.
        let _ = unsafe { rustix::mm::madvise(start, length as usize, Advice::LinuxDontNeed) };
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn the_program_goes_on_with_less_of_itself_in_memory() {
        let before = resident();
        give_back();
        assert!(resident() < before);
    }
}
