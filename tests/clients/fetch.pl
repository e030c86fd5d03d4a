# Fetches a maildrop with Perl's Net::POP3: fetch.pl HOST PORT USER PASSWORD DIRECTORY keep|delete
#
# Each message becomes a file in DIRECTORY. Its lines end in LF, because Net::Cmd returns them so.

use strict;
use warnings;
use Net::POP3;

my ($host, $port, $user, $password, $directory, $then) = @ARGV;
my $server = Net::POP3->new($host, Port => $port, Timeout => 60) or die "cannot connect: $@\n";
my $count = $server->login($user, $password);
die "login refused: " . $server->message unless defined $count;

my ($listed) = $server->popstat;
my $sizes = $server->list;
my $unique_ids = $server->uidl;
die "LIST, UIDL and STAT do not agree\n" unless keys %$sizes == $listed && keys %$unique_ids == $listed;
my %numbers = map { $unique_ids->{$_} => $_ } keys %$unique_ids;
die "two messages have the same unique-id\n" unless keys %numbers == $listed;

for my $number (1 .. $count) {
    open my $file, '>:raw', sprintf('%s/%03d', $directory, $number) or die "$directory: $!\n";
    my $lines = $server->get($number) or die "RETR $number: " . $server->message;
    print {$file} @$lines;
    close $file or die "$directory: $!\n";
    my $top = $server->top($number, 0) or die "TOP $number: " . $server->message;
    die "TOP $number 0 is not the beginning of the message\n" if join('', @$top) ne join('', @{$lines}[0 .. $#$top]);
    die "DELE $number: " . $server->message if $then eq 'delete' && !$server->delete($number);
}
$server->quit or die "QUIT: " . $server->message;
