-- Starts of boxes whose clock was not set: when each began, by the server's clock.

CREATE TABLE boot_clocks (
    device_no BIGINT NOT NULL,
    boot_seq BIGINT NOT NULL,
    began BIGINT NOT NULL,
    PRIMARY KEY (device_no, boot_seq)
);
