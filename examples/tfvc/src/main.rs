//! Runs the double by itself, for a demonstration or to compare its answers with others.

use tfvc_double::{Double, TOKEN};

fn main() {
    let double = Double::start();
    double.world(|world| {
        world.check_in("US1: the first", &[("add, edit, encoding", "$/Payments/main/a.cs")]);
        world.check_in(&format!("US2: {}", "a long comment ".repeat(9)), &[("edit", "$/Payments/main/a.cs")]);
    });
    println!("Each line of standard input is checked in as a comment, with one changed file.");
    println!("collection  {}", double.collection());
    println!("project     Payments");
    println!("token       {TOKEN}");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let number = double.world(|world| world.check_in(&line, &[("edit", "$/Payments/main/a.cs")]));
        println!("changeset {number}");
    }
    // Without anybody who types, it goes on until it is killed.
    loop {
        std::thread::park();
    }
}
