loom_main() {
    loom_begin
    loom_check
    loom_say fine
}
