//! The global allocator of a Rust program: every Box, Vec and String, those of the standard library and of threads too.
//!
//! What it shows of the page heap: it serves before `main` and calls no malloc; slabs are aligned spans that go back
//! when they are empty; a Vec that outgrows its span grows in place where the pages behind it are free, and gives its
//! end back when it shrinks; the hard limit is a null pointer and not an abort. Plain `extern "C"`, no crate.
use std::alloc::{GlobalAlloc, Layout};
use std::sync::{atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed}, Mutex, Once};
use std::{collections::BTreeMap, mem, ptr, thread};

pub enum Heap {}
type Options = [usize; 64]; // zeroed and larger than hs_options: only the library looks inside
#[repr(C)]
struct Request { pages: usize, alignment_pages: usize, wished: *mut u8, is_zero: bool, lifetime: u32, objects: u32 }
#[repr(C)]
struct Allocation { address: *mut u8, pages: usize, is_zero: bool, refaulted_pages: usize }

extern "C" {
    fn hs_options_init(options: *mut Options, size: usize);
    fn hs_options_parse(text: *const u8, options: *mut Options, process: *mut u8, error: *mut u8) -> u32;
    fn hs_heap_create(options: *const Options, heap: *mut *mut Heap) -> u32;
    fn hs_allocate_request(heap: *mut Heap, request: *const Request, allocation: *mut Allocation) -> u32;
    fn hs_free(heap: *mut Heap, address: *mut u8, pages: usize);
    fn hs_grow(heap: *mut Heap, address: *mut u8, pages: usize, more: usize) -> u32;
    fn hs_shrink(heap: *mut Heap, address: *mut u8, pages: usize, kept: usize) -> u32;
    fn hs_release_now(heap: *mut Heap, bytes: u64) -> u64;
    fn hs_heap_statistics(heap: *mut Heap, statistics: *mut [u64; 2]) -> u32;
}

const SLAB: usize = 16 * 4096;
const SLOTS: [usize; 17] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192];
/// At the front of a slab. Free slots are linked through their first word.
struct Slab { next: *mut Slab, previous: *mut Slab, free: *mut *mut u8, in_use: usize }
/// The slabs of a class that have room.
struct List(*mut Slab);
unsafe impl Send for List {}
const EMPTY: Mutex<List> = Mutex::new(List(ptr::null_mut()));
static CLASSES: [Mutex<List>; SLOTS.len()] = [EMPTY; SLOTS.len()];
static HEAP: AtomicPtr<Heap> = AtomicPtr::new(ptr::null_mut());
static START: Once = Once::new();
static GROWN: AtomicUsize = AtomicUsize::new(0);

fn pages(bytes: usize) -> usize { (bytes + 4095) / 4096 }
fn class(of: Layout) -> Option<usize> { SLOTS.iter().position(|&slot| slot >= of.size() && of.align() <= 16) }

impl List {
    unsafe fn insert(&mut self, slab: *mut Slab) {
        (*slab).next = mem::replace(&mut self.0, slab);
        if !(*slab).next.is_null() { (*(*slab).next).previous = slab }
    }
    unsafe fn remove(&mut self, slab: *mut Slab) {
        if self.0 == slab { self.0 = (*slab).next } else { (*(*slab).previous).next = (*slab).next }
        if !(*slab).next.is_null() { (*(*slab).next).previous = (*slab).previous }
    }
}

/// The heap, made at the first allocation, long before `main`; null if there can be none.
unsafe fn heap() -> *mut Heap {
    START.call_once(|| {
        let (mut options, mut made, nowhere) = ([0; 64], ptr::null_mut(), ptr::null_mut());
        hs_options_init(&mut options, mem::size_of::<Options>());
        hs_options_parse(b"policy:rent-or-buy,hard-limit:1GiB\0".as_ptr(), &mut options, nowhere, nowhere);
        if hs_heap_create(&options, &mut made) == 0 { HEAP.store(made, Relaxed) }
    });
    HEAP.load(Relaxed)
}

unsafe fn span(bytes: usize, alignment: usize) -> *mut u8 {
    let (heap, mut made, mut request) = (heap(), mem::zeroed::<Allocation>(), mem::zeroed::<Request>());
    (request.pages, request.alignment_pages) = (pages(bytes), pages(alignment));
    if heap.is_null() || hs_allocate_request(heap, &request, &mut made) != 0 { ptr::null_mut() } else { made.address }
}
unsafe fn slab_of(slot: usize) -> *mut Slab {
    let slab = span(SLAB, SLAB) as *mut Slab;
    if slab.is_null() { return slab }
    *slab = mem::zeroed();
    for index in (0..(SLAB - 64) / slot).rev() {
        let place = (slab as *mut u8).add(64 + index * slot) as *mut *mut u8;
        *place = mem::replace(&mut (*slab).free, place) as *mut u8;
    }
    slab
}

struct SpanAllocator;
#[global_allocator]
static ALLOCATOR: SpanAllocator = SpanAllocator;
unsafe impl GlobalAlloc for SpanAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let small = class(layout);
        if small.is_none() { return span(layout.size(), layout.align()) }
        let mut list = CLASSES[small.unwrap()].lock().unwrap();
        if list.0.is_null() { list.0 = slab_of(SLOTS[small.unwrap()]) }
        if list.0.is_null() { return ptr::null_mut() }
        let (slab, slot) = (list.0, (*list.0).free);
        (*slab).free = *slot as *mut *mut u8;
        (*slab).in_use += 1;
        if (*slab).free.is_null() { list.remove(slab) }
        slot as *mut u8
    }
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let small = class(layout);
        if small.is_none() { return hs_free(heap(), object, pages(layout.size())) }
        let mut list = CLASSES[small.unwrap()].lock().unwrap();
        let slab = (object as usize & !(SLAB - 1)) as *mut Slab;
        if (*slab).free.is_null() { list.insert(slab) }
        *(object as *mut *mut u8) = mem::replace(&mut (*slab).free, object as *mut *mut u8) as *mut u8;
        (*slab).in_use -= 1;
        if (*slab).in_use == 0 { list.remove(slab); hs_free(heap(), slab as *mut u8, pages(SLAB)) }
    }
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let wanted = Layout::from_size_align_unchecked(size, layout.align());
        if class(layout) == class(wanted) {
            let (old, new) = (pages(layout.size()), pages(size));
            if class(layout).is_some() || old == new { return object }
            if new < old && hs_shrink(heap(), object, old, new) == 0 { return object }
            if new > old && hs_grow(heap(), object, old, new - old) == 0 { GROWN.fetch_add(1, Relaxed); return object }
        }
        let moved = self.alloc(wanted);
        if moved.is_null() { return moved }
        ptr::copy_nonoverlapping(object, moved, layout.size().min(size));
        self.dealloc(object, layout);
        moved
    }
}

fn used_pages() -> u64 {
    let mut now = [16, 0]; // the first two words of hs_statistics: the library goes by the size in the first
    assert_eq!(unsafe { hs_heap_statistics(heap(), &mut now) }, 0);
    now[1]
}
fn main() {
    let before = used_pages();
    println!("{before} pages in use before main");
    let work = |seed: u32| {
        let text = |key: u32| format!("{key}-{seed},").repeat((key % 50) as usize);
        let mut table: BTreeMap<u32, String> = (0..20_000).map(|key| (key, text(key))).collect();
        table.retain(|key, _| key % 10 < 3);
        assert!(table.len() == 6000 && table.iter().all(|(key, value)| *value == text(*key)));
    };
    for worker in [0, 1, 2, 3].map(|seed| thread::spawn(move || work(seed))) { worker.join().unwrap() }
    let mut numbers = Vec::new();
    for number in 0..8_000_000u64 { numbers.push(number) }
    println!("a vector of {} MiB, grown {} times in place", numbers.capacity() >> 17, GROWN.load(Relaxed));
    numbers.truncate(1000);
    numbers.shrink_to_fit();
    assert!(numbers.iter().sum::<u64>() == 499_500 && numbers.try_reserve(1 << 30).is_err());
    drop(numbers);
    let (after, released) = (used_pages(), unsafe { hs_release_now(heap(), u64::MAX) } >> 20);
    println!("{after} pages in use afterwards, {released} MiB given back");
    assert!(before > 0 && GROWN.load(Relaxed) > 0 && after <= before + 32 && released > 32);
}
