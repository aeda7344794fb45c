loom_main() {
    loom_begin
    loom_held || rm -rf "$loom_dir"
    loom_say fine
}
