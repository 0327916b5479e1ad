-- peft-daemon in Neovim 0.12 or later, which shows ghost text itself; <Tab> accepts it.
-- `gra` on a comment or a docstring offers to generate code from it.

vim.lsp.config("peft_daemon", {
  cmd = { "peft-daemon", "lsp" },
  root_markers = { ".peft-daemon.toml", ".git" },
  settings = { ["peft-daemon"] = {} }, -- see docs/editors.md
  handlers = {
    ["peft-daemon/status"] = function(_, status)
      vim.g.peft_daemon = status.state -- for a status line: %{get(g:,'peft_daemon','')}
      vim.cmd.redrawstatus()
    end,
    -- There is more of the ghost text: have Neovim ask again, as it does when the cursor moves.
    ["peft-daemon/more"] = function(_, more)
      local buffer = vim.api.nvim_get_current_buf()
      if more.uri == vim.uri_from_bufnr(buffer) and vim.fn.mode() == "i" then
        local group = "nvim.lsp.inline_completion:" .. buffer
        pcall(vim.api.nvim_exec_autocmds, "CursorMovedI", { group = group, buffer = buffer })
      end
    end,
  },
})
vim.lsp.enable("peft_daemon")
vim.lsp.inline_completion.enable()

-- Where the cursor rests (for 'updatetime') the model reads ahead.
vim.api.nvim_create_autocmd({ "LspAttach", "BufEnter", "CursorHold" }, {
  callback = function(event)
    local client = vim.lsp.get_clients({ bufnr = event.buf, name = "peft_daemon" })[1]
    if client and event.buf == vim.api.nvim_get_current_buf() then
      local here = vim.lsp.util.make_position_params(0, client.offset_encoding)
      client:notify("peft-daemon/cursor", { uri = here.textDocument.uri, position = here.position })
    end
  end,
})

-- Neovim puts the text in as it came: in a file with CRLF the CRs would become part of the lines.
local function without_cr(item)
  item.insert_text = item.insert_text:gsub("\r\n", "\n")
  return item
end

vim.keymap.set("i", "<Tab>", function()
  if not vim.lsp.inline_completion.get({ on_accept = without_cr }) then
    return "<Tab>"
  end
end, { expr = true, desc = "Accept ghost text" })

vim.api.nvim_create_user_command("PeftDaemonWhy", function()
  local client = vim.lsp.get_clients({ bufnr = 0, name = "peft_daemon" })[1]
  local params = { command = "peft-daemon.why", arguments = { vim.uri_from_bufnr(0) } }
  assert(client, "peft-daemon is not attached here"):request("workspace/executeCommand", params, function(failed, answer)
    vim.notify(failed and failed.message or answer.text)
  end)
end, { desc = "Why there was ghost text, or none" })
